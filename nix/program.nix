# The programs: `astolfo`, `snakemake`, and `astolfo-build TARGET`, which does in the current folder what `make TARGET` does.
{
  lib,
  pkgs,
  environment,
  libraryPath,
  tools,
}:
let
  checkout = "${environment}/share/astolfo";
  wrap =
    name: command:
    pkgs.writeShellScript name ''
      export LD_LIBRARY_PATH=${libraryPath}''${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
      export PATH=$PATH:${lib.makeBinPath tools}
      exec ${command} "$@"
    '';
in
pkgs.runCommand "astolfo" { meta.mainProgram = "astolfo-build"; } ''
  mkdir -p $out/bin
  ln -s ${wrap "astolfo" "${environment}/bin/astolfo"} $out/bin/astolfo
  ln -s ${wrap "snakemake" "${environment}/bin/snakemake"} $out/bin/snakemake
  ln -s ${
    wrap "astolfo-build" "sh ${checkout}/envs/snakemake --snakefile ${checkout}/Snakefile"
  } $out/bin/astolfo-build
''
