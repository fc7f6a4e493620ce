# The libraries and this project, as the checkout with its .venv that `make env` makes. Small: a change of the project
# does not install the libraries again.
{
  pkgs,
  libraries,
  src,
}:
pkgs.runCommand "astolfo-environment" { inherit libraries src; } ''
  export HOME=$TMPDIR
  sh ${./environment.sh}
''
