# The NAR hash of the files that envs/exact*.txt name. Written by envs/exact.
{ x86_64-linux = "sha256-3DoM/AbKPE/m7yC4UWSTdMqBqoxKNCna5qZ1DX+Gd20="; }
