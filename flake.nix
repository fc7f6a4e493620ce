{
  description = "Rebuilds SDXL fine-tuning runs, bit for bit, from a ledger";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;

      # A decision: the wheels that the lock names, CUDA's among them, are these. Another system needs an exact lock of its own.
      systems = [ "x86_64-linux" ];

      # Everything of nix/, for one system.
      ours =
        system:
        import ./nix {
          inherit lib;
          pkgs = nixpkgs.legacyPackages.${system};
          src = lib.cleanSource ./.;
        };
      perSystem = make: lib.genAttrs systems (system: make (ours system));
    in
    {
      packages = perSystem (it: {
        inherit (it) wheelhouse libraries environment;
        default = it.program;
      });

      # nix run . -- results/ID.safetensors
      apps = perSystem (it: {
        default = {
          type = "app";
          program = "${it.program}/bin/astolfo-build";
        };
      });

      devShells = perSystem (it: {
        default = it.shell;
      });
      checks = perSystem (it: it.checks);
      formatter = perSystem (it: it.formatter);
    };
}
