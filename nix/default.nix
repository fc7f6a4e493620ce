# What the flake gives for one system. Wheels come from the exact lock, everything else from the pinned nixpkgs.
{
  lib,
  pkgs,
  src,
}:
let
  # The Python that envs/exact*.txt are made for; envs/exact refuses another one.
  python = pkgs.python312;

  # Wheels find libstdc++ and zlib here, and CUDA's driver where NixOS puts it. Nothing is patched: a patched file would no
  # longer be the one whose sha256 the lock names.
  libraryPath = lib.concatStringsSep ":" [
    (lib.makeLibraryPath [
      pkgs.stdenv.cc.cc.lib
      pkgs.zlib
    ])
    "${pkgs.addDriverRunpath.driverLink}/lib"
  ];

  # What the rules' shell lines call, and the compiler of torch.compile and AdamW4bit.
  tools = [
    pkgs.bash
    pkgs.coreutils
    pkgs.util-linux
    pkgs.stdenv.cc
  ];
in
rec {
  wheelhouse = import ./wheelhouse.nix { inherit lib pkgs python; };
  libraries = import ./libraries.nix { inherit pkgs python wheelhouse; };
  environment = import ./environment.nix { inherit pkgs libraries src; };
  program = import ./program.nix {
    inherit
      lib
      pkgs
      environment
      libraryPath
      tools
      ;
  };

  shell = pkgs.mkShell {
    packages = [
      environment
      formatter
      pkgs.git
    ]
    ++ tools;
    LD_LIBRARY_PATH = libraryPath;
  };

  formatter = pkgs.writeShellApplication {
    name = "astolfo-format";
    runtimeInputs = [
      environment
      pkgs.git
      pkgs.nixfmt
    ];
    text = ''
      nixfmt "$@" flake.nix nix/*.nix
      ruff format .
      snakefmt workflow
    '';
  };

  checks = import ./checks.nix {
    inherit
      pkgs
      environment
      libraryPath
      src
      tools
      ;
  };
}
