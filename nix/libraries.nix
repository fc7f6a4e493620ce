# A virtual environment with every package of the locks, installed offline by the installer that `make` uses.
{
  pkgs,
  python,
  wheelhouse,
}:
pkgs.runCommand "astolfo-libraries"
  {
    python = "${python}/bin/python3.12";
    PIP_NO_INDEX = "1";
    PIP_FIND_LINKS = "${wheelhouse}";
    PIP_CONFIG_FILE = "/dev/null";
  }
  ''
    export HOME=$TMPDIR
    sh ${../envs}/install "$python" "$out" --libraries
    rm "$out/install.log"
  ''
