# A virtual environment with every package of the locks, installed offline by the script that `make` calls.
{
  pkgs,
  python,
  wheelhouse,
}:
let
  # Just what the installer reads, so that nothing else of the project makes it run again.
  envs = pkgs.runCommand "astolfo-locks" { } ''
    mkdir $out
    cp ${../envs/build.txt} $out/build.txt
    cp ${../envs/lock.txt} $out/lock.txt
    cp ${../envs/cluster.txt} $out/cluster.txt
    cp ${../envs/install} $out/install
    cp ${../envs/bytecode} $out/bytecode
  '';
in
pkgs.runCommand "astolfo-libraries"
  {
    python = "${python}/bin/python3.12";
    INSTALLER = "pip"; # uv's program is made for other systems than NixOS, which has no loader where it looks for one
    PIP_NO_INDEX = "1";
    PIP_FIND_LINKS = "${wheelhouse}";
    PIP_CONFIG_FILE = "/dev/null";
  }
  ''
    export HOME=$TMPDIR
    sh ${envs}/install "$python" "$out" --libraries
    rm "$out/install.log"
    # Scripts name $out, which Nix rewrites when it builds a second time to compare; their recorded digests it cannot.
    sed -i '/^\.\.\/\.\.\/\.\.\/bin\//d' "$out"/lib/python3.*/site-packages/*.dist-info/RECORD
  ''
