"""Does what it is told, to its server too."""

from modelway import AbstractModel


class Hostile(AbstractModel):
    batch = False

    def predict(self, code: str) -> str:
        names: dict = {"kept": self}
        try:
            exec(code, names)
        except OSError as error:
            return f"refused: {error.errno}"
        except Exception as error:
            return repr(error)
        return str(names.get("made"))
