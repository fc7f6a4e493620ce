# The NAR hash of the files that envs/exact*.txt name. Written by envs/exact.
{ x86_64-linux = "sha256-fEEa0EWs5uzf/z1HnpMw/hDsBdJ0OA6tzyRjj/5lbBc="; }
