// Elements are made here, and text gets into them as text only: nothing on the
// page ever reads a string as markup.

type Props<T> = Partial<Omit<T, "style" | "dataset">> & { data?: Record<string, string> };

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Props<HTMLElementTagNameMap[K]> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const { data, ...rest } = props;
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, data);
  element.append(...children);
  return element;
}

export const pause = (ms: number, wake?: AbortSignal): Promise<void> =>
  new Promise((done) => {
    const timer = setTimeout(done, ms);
    wake?.addEventListener("abort", () => (clearTimeout(timer), done()), { once: true });
  });

/** A dialog that is gone once it is closed. */
export function dialog(title: string, ...children: (Node | string)[]): HTMLDialogElement {
  const box = h("dialog", { ariaLabel: title }, h("h2", {}, title), ...children);
  box.addEventListener("close", () => box.remove());
  document.body.append(box);
  box.showModal();
  return box;
}

// A name with nothing in it hidden: names that are older than the rule against
// invisible characters may hold some.
const HIDDEN = /[\p{Default_Ignorable_Code_Point}\p{Cf}\u2800]/gu;
const code = (c: string) => `\\u{${c.codePointAt(0)!.toString(16)}}`;

export const shown = (name: string): string => name.replace(HIDDEN, code);

/** A name among others in one text, which it does not turn. */
export const isolated = (name: string): string => `\u2068${shown(name)}\u2069`;
