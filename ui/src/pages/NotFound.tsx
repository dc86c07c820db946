import { Link } from "@tanstack/react-router";

export function NotFound() {
  return (
    <main className="page">
      <div className="notice">
        <h1>There is no such page</h1>
        <p>
          Flowtap has <Link to="/">flows</Link> and <Link to="/agents">coverage</Link>. To find one flow,
          search for any id that you know.
        </p>
      </div>
    </main>
  );
}
