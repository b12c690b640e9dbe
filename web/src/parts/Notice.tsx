// An error in the words of the page, or of the server where the page has none.
import { Alert } from "@mantine/core";
import { useTranslation } from "react-i18next";
import { errorText } from "../logic/text";

export function Notice({ error }: { error: unknown }) {
  const { t } = useTranslation();
  if (!error) return null;
  return (
    <Alert className="notice" color="red" title={t("errors.title")} role="alert">
      {errorText(error, t)}
    </Alert>
  );
}
