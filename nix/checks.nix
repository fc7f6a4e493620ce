# nix flake check: formats, lint, and the test suite at the miniature scale, in the environment that the flake builds.
{
  pkgs,
  environment,
  libraryPath,
  src,
  tools,
}:
let
  check =
    name: command:
    pkgs.runCommand "astolfo-${name}"
      {
        nativeBuildInputs = [
          environment
          pkgs.git
        ]
        ++ tools;
        LD_LIBRARY_PATH = libraryPath;
      }
      ''
        cp -R ${src} checkout
        chmod -R u+w checkout
        cd checkout
        export HOME=$TMPDIR
        ${command}
        touch $out
      '';
in
{
  format = check "format" "ruff format --check . && snakefmt --check workflow";
  lint = check "lint" "ruff check .";
  tests = check "tests" "python -m pytest -n 2 --dist worksteal";
}
