// The dialogs: a new chat, and the members of one.
import { failure, type Api } from "./api";
import { dialog, h, shown } from "./dom";
import type { Chat } from "./gen/chat_v1/chat_pb";
import type { Session } from "./session";

const names = (text: string): string[] =>
  text
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "");

/** Asks for members and makes a chat of them. */
export function newChat(api: Api, made: (id: bigint) => void): void {
  const field = h("input", { id: "with", placeholder: "bob, carol", autofocus: true });
  const error = h("p", { className: "error" });
  error.setAttribute("role", "alert");
  const form = h(
    "form",
    { method: "dialog" },
    h("label", {}, "With whom? Names, separated by commas", field),
    error,
    h("div", { className: "buttons" }, h("button", { id: "create" }, "Create"), cancel()),
  );
  const box = dialog("New chat", form);
  form.onsubmit = async (event) => {
    event.preventDefault();
    try {
      const { id } = await api.chats.create({ info: { usernames: names(field.value) } });
      box.close();
      made(id);
    } catch (cause) {
      error.textContent = failure(cause).text;
    }
  };
}

/** Shows who is in a chat, and lets those change it who may. */
export function members(
  api: Api,
  session: Session,
  chat: Chat,
  left: () => void,
  changed: (chat: Chat) => void,
): void {
  const mayChange = session.admin || chat.createdBy === session.user;
  const list = h("ul", { className: "people" });
  const field = h("input", { placeholder: "names, separated by commas", autofocus: true });
  field.setAttribute("aria-label", "new members");
  const error = h("p", { className: "error" });
  error.setAttribute("role", "alert");

  const doing = async (work: () => Promise<void>) => {
    error.textContent = "";
    try {
      await work();
    } catch (cause) {
      error.textContent = failure(cause).text;
    }
  };
  const take = (now?: Chat) => {
    if (!now) return;
    chat = now;
    changed(now);
    draw();
  };
  const remove = (usernames: string[]) => api.chats.removeMembers({ chatId: chat.id, usernames });
  const draw = () => {
    const people = chat.info?.usernames ?? [];
    list.replaceChildren(
      ...people.map((name) => {
        const row = h("li", {}, h("span", { dir: "auto" }, shown(name)));
        if (name === chat.createdBy) row.append(h("small", {}, "made the chat"));
        if (mayChange && name !== session.user) {
          const out = () => doing(async () => take((await remove([name])).chat));
          row.append(h("button", { onclick: out, ariaLabel: `remove ${name}` }, "Remove"));
        }
        return row;
      }),
    );
  };
  const add = h("form", { className: "add" }, field, h("button", {}, "Add"));
  add.onsubmit = (event) => {
    event.preventDefault();
    void doing(async () => {
      take((await api.chats.addMembers({ chatId: chat.id, usernames: names(field.value) })).chat);
      field.value = "";
    });
  };
  const end = (work: () => Promise<unknown>) =>
    doing(async () => {
      await work();
      box.close();
      left();
    });
  const leave = h("button", { id: "leave" }, "Leave");
  leave.onclick = () => end(() => remove([session.user]));
  const close = cancel("Close");
  close.autofocus = true;
  const buttons = h("div", { className: "buttons" }, leave, close);
  if (mayChange) {
    // The first press asks, the second does it.
    const drop = h("button", { id: "delete", className: "danger" }, "Delete");
    drop.onclick = () => {
      if (drop.textContent === "Delete") drop.textContent = "Delete for everybody?";
      else void end(() => api.chats.delete({ id: chat.id }));
    };
    buttons.prepend(drop);
  }
  const box = dialog("Members", list, ...(mayChange ? [add] : []), error, buttons);
  draw();
  void doing(async () => take((await api.chats.get({ id: chat.id })).chat));
}

function cancel(text = "Cancel"): HTMLButtonElement {
  return h("button", { type: "button", onclick: (event) => (event.target as Element).closest("dialog")?.close() }, text);
}
