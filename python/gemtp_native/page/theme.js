// Light or dark: as the system says unless the user chose. Runs before the page is drawn.

const NAME = "gemtp.theme";
export const THEMES = ["system", "light", "dark"];

export function theme() {
  try {
    const chosen = localStorage.getItem(NAME);
    return THEMES.includes(chosen) ? chosen : "system";
  } catch {
    return "system";
  }
}

export function setTheme(chosen) {
  try {
    localStorage.setItem(NAME, chosen);
  } catch {
    // Holds until the page is left.
  }
  show(chosen);
}

function show(chosen) {
  if (chosen === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
}

show(theme());
