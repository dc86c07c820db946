// Runs before the first paint, so that a chosen theme does not flash. A file and not an inline script:
// the page is served under a policy that allows no inline code.
try {
  const theme = localStorage.getItem("flowtap.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage can be forbidden; the page then follows the system.
}
