// Keyboard commands. Single letters act only outside of fields and only while they are switched on.
import { useEffect, useRef } from "react";
import { useSettings } from "../settings";

export type Commands = Record<string, (event: KeyboardEvent) => void>;

export const isField = (target: EventTarget | null) =>
  target instanceof HTMLElement &&
  (target.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(target.tagName));

export function useCommands(commands: Commands) {
  const { letters } = useSettings();
  const latest = useRef(commands);
  latest.current = commands;
  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
      if (isField(event.target) && event.key !== "Escape") return;
      if (document.querySelector("dialog[open]")) return;
      const letter = event.key.length === 1;
      if (letter && !letters) return;
      const command = latest.current[letter ? event.key.toLowerCase() : event.key];
      if (!command) return;
      // Enter on a button or a link is that button's.
      if (
        event.key === "Enter" &&
        event.target instanceof HTMLElement &&
        event.target.closest("button, a, summary")
      )
        return;
      command(event);
    };
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  }, [letters]);
}
