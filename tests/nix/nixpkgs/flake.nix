# A stand-in for nixpkgs: the attributes that our flake uses, made of this machine's programs. It lets Nix walk, and build,
# everything of flake.nix where the real nixpkgs cannot be had; that nixpkgs has these attributes it does not show.
{
  outputs =
    { self }:
    let
      host = import ./host.nix; # { python = "/usr/bin/python3.12"; path = "/usr/bin:/bin"; }

      lib = rec {
        inherit (builtins) attrValues concatStringsSep readFile;
        genAttrs =
          names: make:
          builtins.listToAttrs (
            map (name: {
              inherit name;
              value = make name;
            }) names
          );
        mapAttrsToList = make: set: map (name: make name set.${name}) (builtins.attrNames set);
        concatStrings = concatStringsSep "";
        concatMapStrings = make: list: concatStrings (map make list);
        makeLibraryPath = concatMapPaths "lib";
        makeBinPath = concatMapPaths "bin";
        concatMapPaths = folder: list: concatStringsSep ":" (map (item: "${item}/${folder}") list);
        cleanSource = src: src;
        fetchers.proxyImpureEnvVars = [
          "http_proxy"
          "https_proxy"
          "no_proxy"
        ];
      };

      pkgs = rec {
        stdenv = {
          hostPlatform.system = "x86_64-linux";
          cc = empty "gcc" // {
            cc.lib = empty "gcc-lib";
          };
        };
        # The shell ends with `exit`, so that it runs the last command as a child: a program of coreutils closes its output before
        # it ends, which Nix takes for the builder's end, and it kills what is still there.
        runCommand =
          name: attributes: script:
          let
            inputs = attributes.nativeBuildInputs or [ ] ++ attributes.packages or [ ];
          in
          derivation (
            removeAttrs attributes [ "meta" ]
            // {
              inherit name;
              inherit (stdenv.hostPlatform) system;
              builder = "/bin/bash";
              args = [
                "-euc"
                "export PATH=${lib.concatMapStrings (item: "${item}/bin:") inputs}${host.path}\ncd $NIX_BUILD_TOP\n${script}\nexit"
              ];
            }
          )
          // {
            meta = attributes.meta or { };
          };
        empty = name: runCommand name { } "mkdir -p $out/bin $out/lib";
        writeShellScript =
          name: text: runCommand name { inherit text; } ''printf '#!/bin/bash\n%s' "$text" >$out; chmod +x $out'';
        writeShellApplication =
          {
            name,
            runtimeInputs,
            text,
          }:
          runCommand name {
            nativeBuildInputs = runtimeInputs;
            inherit text;
          } ''mkdir -p $out/bin; printf '#!/bin/bash\n%s' "$text" >$out/bin/${name}; chmod +x $out/bin/${name}'';
        mkShell = attributes: runCommand "shell" attributes "mkdir $out";
        python312 = runCommand "python3" { } "mkdir -p $out/bin; ln -s ${host.python} $out/bin/python3.12";
        cacert = runCommand "cacert" { } ''
          mkdir -p $out/etc/ssl/certs
          ln -s /etc/ssl/certs/ca-certificates.crt $out/etc/ssl/certs/ca-bundle.crt
        '';
        addDriverRunpath.driverLink = "/run/opengl-driver";
        bash = empty "bash";
        coreutils = empty "coreutils";
        git = empty "git";
        nixfmt = empty "nixfmt";
        util-linux = empty "util-linux";
        zlib = empty "zlib";
      };
    in
    {
      inherit lib;
      legacyPackages.x86_64-linux = pkgs;
    };
}
