// Start of the page. Styles are files, and nothing writes a style element: the server's policy forbids both
// inline styles and scripts.
import { createTheme, localStorageColorSchemeManager, MantineProvider } from "@mantine/core";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./app";
import { startLanguages } from "./i18n";
import "./styles";

const theme = createTheme({ defaultRadius: "md", cursorType: "pointer", respectReducedMotion: true });
const schemes = localStorageColorSchemeManager({ key: "tesela-colors" });

await startLanguages();
const root = document.getElementById("root");
if (root) {
  createRoot(root).render(
    <StrictMode>
      <MantineProvider
        theme={theme}
        defaultColorScheme="auto"
        colorSchemeManager={schemes}
        withCssVariables={false}
        withGlobalClasses={false}
      >
        <App />
      </MantineProvider>
    </StrictMode>,
  );
}
