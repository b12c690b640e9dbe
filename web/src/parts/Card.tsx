// A model card's markdown; pictures are left out, for they would come from other hosts.
import Markdown, { type Components } from "react-markdown";
import gfm from "remark-gfm";

const PARTS: Components = {
  a: ({ href, children }) => <a href={href} rel="noreferrer noopener" target="_blank">{children}</a>,
  th: ({ children }) => (children ? <th scope="col">{children}</th> : <td />), // a table without a head has empty ones
  pre: ({ children }) => <pre tabIndex={0}>{children}</pre>, // it scrolls, also by the keyboard
};

export function Card({ text }: { text: string }) {
  const body = text.replace(/^---\r?\n[\s\S]*?\r?\n---\r?\n/, ""); // front matter is for machines
  return (
    <div className="prose">
      <Markdown remarkPlugins={[gfm]} disallowedElements={["img"]} components={PARTS}>
        {body}
      </Markdown>
    </div>
  );
}
