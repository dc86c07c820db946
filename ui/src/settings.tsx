// What the reader chose for all pages: zone, theme, single-letter keys. The zone is also in the URL (tz=),
// so that a link shows what its sender saw.
import { createContext, type ReactNode, useContext, useEffect, useMemo, useState } from "react";
import type { Zone } from "./lib/time";

export type Theme = "auto" | "light" | "dark";

interface Settings {
  zone: Zone;
  setZone(zone: Zone): void;
  theme: Theme;
  setTheme(theme: Theme): void;
  /** Whether single letters act as commands. */
  letters: boolean;
  setLetters(on: boolean): void;
}

const Context = createContext<Settings | null>(null);

function stored(name: string): string | null {
  try {
    return localStorage.getItem(`flowtap.${name}`);
  } catch {
    return null;
  }
}

function store(name: string, value: string) {
  try {
    localStorage.setItem(`flowtap.${name}`, value);
  } catch {
    // Storage can be forbidden; the choice then lasts as long as the page.
  }
}

const firstZone = (): Zone => {
  const asked = new URLSearchParams(window.location.search).get("tz") ?? stored("zone");
  return asked === "local" ? "local" : "utc";
};

export function SettingsProvider({ children }: { children: ReactNode }) {
  const [zone, setZone] = useState<Zone>(firstZone);
  const [theme, setTheme] = useState<Theme>(() => {
    const chosen = stored("theme");
    return chosen === "light" || chosen === "dark" ? chosen : "auto";
  });
  const [letters, setLetters] = useState(() => stored("letters") !== "off");

  useEffect(() => {
    store("theme", theme);
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  }, [theme]);
  useEffect(() => store("zone", zone), [zone]);
  useEffect(() => store("letters", letters ? "on" : "off"), [letters]);

  const value = useMemo(
    () => ({ zone, setZone, theme, setTheme, letters, setLetters }),
    [zone, theme, letters],
  );
  return <Context value={value}>{children}</Context>;
}

export function useSettings(): Settings {
  const settings = useContext(Context);
  if (!settings) throw new Error("useSettings outside of SettingsProvider");
  return settings;
}

/** Changes whenever the colours on the page do: canvases paint again. */
export function useThemeVersion(): number {
  const { theme } = useSettings();
  const [version, setVersion] = useState(0);
  useEffect(() => setVersion((n) => n + 1), [theme]);
  useEffect(() => {
    const media = window.matchMedia("(prefers-color-scheme: dark)");
    const count = () => setVersion((n) => n + 1);
    media.addEventListener("change", count);
    return () => media.removeEventListener("change", count);
  }, []);
  return version;
}

/** The time, again every few seconds, for "3 min ago". */
export function useNow(every = 5_000): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), every);
    return () => clearInterval(timer);
  }, [every]);
  return now;
}
