// A model card's markdown; pictures are left out, for they would come from other hosts.
import Markdown from "react-markdown";
import gfm from "remark-gfm";

export function Card({ text }: { text: string }) {
  const body = text.replace(/^---\r?\n[\s\S]*?\r?\n---\r?\n/, ""); // front matter is for machines
  return (
    <div className="prose">
      <Markdown remarkPlugins={[gfm]} disallowedElements={["img"]} components={{ a: ({ href, children }) => <a href={href} rel="noreferrer noopener" target="_blank">{children}</a> }}>
        {body}
      </Markdown>
    </div>
  );
}
