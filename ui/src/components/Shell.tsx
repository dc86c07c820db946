// The frame of every page: name, pages, the one search box, zone, theme, help.
import { Link, Outlet, useNavigate, useRouterState } from "@tanstack/react-router";
import { useEffect, useRef, useState } from "react";
import { type Zone, zoneName } from "../lib/time";
import { type Theme, useSettings } from "../settings";
import { Segmented } from "./bits";
import { Help } from "./Help";
import { useCommands } from "./keys";

export function Shell() {
  const { zone, setZone, theme, setTheme } = useSettings();
  const [help, setHelp] = useState(false);
  const navigate = useNavigate();
  const asked = useRouterState({ select: (state) => (state.location.search as { tz?: string }).tz });

  // A link that names a zone is read in it.
  useEffect(() => {
    if (asked === "local" || asked === "utc") setZone(asked);
  }, [asked, setZone]);

  const chooseZone = (next: Zone) => {
    setZone(next);
    void navigate({ to: ".", search: (before) => ({ ...before, tz: next }), replace: true });
  };

  useCommands({ "?": () => setHelp(true) });
  return (
    <div className="shell">
      <header className="top">
        <Link to="/" className="brand" aria-label="Flowtap, all flows">
          <svg viewBox="0 0 22 22" width="22" height="22" aria-hidden="true">
            <path d="M2 7.5h18M11 7.5v4.2" />
            <circle cx="11" cy="15.2" r="3.2" />
          </svg>
          Flowtap
        </Link>
        <nav aria-label="Pages">
          <Link to="/" activeOptions={{ exact: true, includeSearch: false }}>
            Flows
          </Link>
          <Link to="/agents">Coverage</Link>
        </nav>
        <SearchBox />
        <div className="tools">
          <Segmented
            label="Time zone"
            value={zone}
            onChange={chooseZone}
            options={[
              { value: "utc", text: "UTC", title: "All times in UTC" },
              { value: "local", text: localName(), title: "All times in this computer's zone" },
            ]}
          />
          <Segmented<Theme>
            label="Theme"
            value={theme}
            onChange={setTheme}
            options={[
              { value: "auto", text: "Auto", title: "As the system" },
              { value: "light", text: "Light" },
              { value: "dark", text: "Dark" },
            ]}
          />
          <button
            type="button"
            className="button square"
            onClick={() => setHelp(true)}
            aria-label="Help and keys"
          >
            ?
          </button>
        </div>
      </header>
      <Outlet />
      {help && <Help close={() => setHelp(false)} />}
    </div>
  );
}

const localName = () => {
  const name = zoneName("local");
  return name === "UTC" ? "Local" : name;
};

function SearchBox() {
  const navigate = useNavigate();
  const asked = useRouterState({ select: (state) => (state.location.search as { id?: string }).id ?? "" });
  const [value, setValue] = useState(asked);
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => setValue(asked), [asked]);
  useCommands({
    "/": (event) => {
      event.preventDefault();
      input.current?.focus();
      input.current?.select();
    },
  });
  return (
    <search className="search">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          const id = value.trim();
          input.current?.blur();
          void navigate({ to: "/", search: id ? { id } : {} });
        }}
      >
        <svg viewBox="0 0 16 16" width="15" height="15" aria-hidden="true" className="glyph">
          <circle cx="7" cy="7" r="4.6" />
          <path d="m10.5 10.5 3.4 3.4" />
        </svg>
        <input
          ref={input}
          value={value}
          onChange={(event) => setValue(event.target.value)}
          onKeyDown={(event) => {
            if (event.key === "Escape") {
              event.preventDefault();
              input.current?.blur();
            }
          }}
          type="search"
          name="id"
          autoComplete="off"
          spellCheck={false}
          aria-label="Any id or key"
          placeholder="Any id or key: order-1042, a transaction id, an event id"
        />
        <kbd>/</kbd>
      </form>
    </search>
  );
}
