// Files that are dropped on the page, pasted or picked.
import { Button } from "@mantine/core";
import { type ReactNode, useEffect, useRef, useState } from "react";
import { Icon } from "./Icon";

export const ACCEPTED = "image/*";

/** Take files from anywhere on the page; true while some hang over it. */
export function useDropped(onFiles: (files: File[]) => void): boolean {
  const [over, setOver] = useState(false);
  const latest = useRef(onFiles);
  latest.current = onFiles;
  useEffect(() => {
    const stop = new AbortController();
    const { signal } = stop;
    const enter = (event: DragEvent) => {
      event.preventDefault();
      setOver(true);
    };
    document.addEventListener("dragenter", enter, { signal });
    document.addEventListener("dragover", enter, { signal });
    document.addEventListener("dragleave", (event) => event.relatedTarget === null && setOver(false), { signal });
    document.addEventListener(
      "drop",
      (event) => {
        event.preventDefault();
        setOver(false);
        const files = [...(event.dataTransfer?.files ?? [])];
        if (files.length) latest.current(files);
      },
      { signal },
    );
    document.addEventListener(
      "paste",
      (event) => {
        const files = [...(event.clipboardData?.files ?? [])];
        if (files.length) latest.current(files);
      },
      { signal },
    );
    return () => stop.abort();
  }, []);
  return over;
}

export function FileButton({
  children,
  onFiles,
  many = false,
  capture = false,
  variant = "filled",
}: {
  children: ReactNode;
  onFiles: (files: File[]) => void;
  many?: boolean;
  capture?: boolean;
  variant?: string;
}) {
  const input = useRef<HTMLInputElement>(null);
  return (
    <>
      <input
        ref={input}
        className="file-input"
        type="file"
        accept={ACCEPTED}
        multiple={many}
        capture={capture ? "environment" : undefined}
        tabIndex={-1}
        aria-hidden="true"
        onChange={(event) => {
          const files = [...(event.currentTarget.files ?? [])];
          event.currentTarget.value = "";
          if (files.length) onFiles(files);
        }}
      />
      <Button variant={variant} leftSection={<Icon name={capture ? "camera" : "upload"} />} onClick={() => input.current?.click()}>
        {children}
      </Button>
    </>
  );
}
