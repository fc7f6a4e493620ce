# The files of the exact locks, as one fixed-output derivation: the only build step that sees the network.
{
  lib,
  pkgs,
  python,
  locks ? {
    "exact-build.txt" = ../envs/exact-build.txt;
    "exact.txt" = ../envs/exact.txt;
  },
  hashes ? import ./hash.nix,
}:
let
  inherit (pkgs.stdenv.hostPlatform) system;

  # A fixed output with the same name and hash is never built again: without the locks' digest in the name, a changed lock
  # whose hash was forgotten would silently be served the old set.
  digest = builtins.substring 0 16 (
    builtins.hashString "sha256" (lib.concatMapStrings builtins.readFile (lib.attrValues locks))
  );
in
pkgs.runCommand "astolfo-wheelhouse-${digest}"
  {
    python = "${python}/bin/python3.12";
    nativeBuildInputs = [ pkgs.cacert ];
    outputHashMode = "recursive";
    outputHashAlgo = "sha256";
    outputHash =
      hashes.${system}
        or (throw "astolfo: no exact lock for ${system}; envs/exact makes one (docs/environments.md)");
    impureEnvVars = lib.fetchers.proxyImpureEnvVars ++ [
      "PIP_INDEX_URL"
      "PIP_EXTRA_INDEX_URL"
      "PIP_FIND_LINKS"
      "PIP_NO_INDEX"
      "PIP_CERT"
      "NIX_SSL_CERT_FILE"
    ];
    SSL_CERT_FILE = "${pkgs.cacert}/etc/ssl/certs/ca-bundle.crt";
  }
  ''
    mkdir locks
    ${lib.concatStrings (lib.mapAttrsToList (name: file: "cp ${file} locks/${name}\n") locks)}
    locks=$PWD/locks sh ${./download.sh}
  ''
