# The NAR hash of the files that envs/exact*.txt name. Written by envs/exact.
{ x86_64-linux = "sha256-hWEsQPK+vpkhQvRXJTICmYXUi90UuCFc6paeNP/2HUg="; }
