"""Scripts of cmd and PowerShell are read as those would read them; what is not understood has trouble, and no value."""

from pathlib import Path

import pytest

from astolfo.errors import InputError
from astolfo.kohya.shell import parse


def shown(text, name):
    """The commands of a script: `?` before one that may not run, and after a word that only the shell knows."""
    return [
        " ".join((["?"] if command.trouble else []) + [f"[{word.text}]" + "?" * bool(word.trouble) for word in command.words])
        for command in parse(Path(name), text).commands
    ]


def batch(text):
    return shown(text, "x.bat")


def power(text):
    return shown(text, "x.ps1")


def unknown(value):
    """Whether the words after `run` of the last command are not known."""
    return all(word.endswith("?") for word in value[-1].split(" ")[1:]) and value[-1].startswith("[run] ")


# ---- cmd


@pytest.mark.parametrize(
    "change",
    [
        "set /a X=%X%*20",
        "set/a X+=1",
        "@>nul set /a X+=1",
        'set /a "Y=2, X<<=1"',
        "(set /a X*=2)",
        "set /p X=Rate?",
        "set /p X=<rate.txt",
        "call settings.bat",
        "call settings",
        "call :settings 1",
        "call set X=%%Y%%",
        "for /f \"tokens=*\" %%i in ('dir /b') do set X=%%i",
        "for %%i in (\n 1\n 2\n) do set X=%%i",
        "for /l %%i in (1,1,3) do set /a X+=1",
        'if "%~1"=="" set X=2',
        "if exist a (set Y=2) else (set X=2)",
        "if 1 EQU 1 (\n echo no (really^)\n set X=2\n)",
        "if what it is (\n set X=2\n)",
        'if not defined Y if /i "a b" == "c" set X=2',
        "check || set X=2",
        "check && set X=2",
        "set %Y%=2",
        "setlocal\nset X=2\nset X=%Y%\nset X",
    ],
)
def test_a_variable_of_cmd_is_unknown_once_it_may_have_changed(change):
    """What calculates, asks, calls, or depends makes a variable unknown, until it gets a plain value."""
    found = batch(f"set X=1\n{change}\nrun %X%\nset X=3\nrun %X%")
    assert unknown(found[:-1])
    assert found[-1] == "[run] [3]"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # a variable may hold several words
        ("set E=--p=foo --s\nrun %E%", ["[run] [--p=foo] [--s]"]),
        ('set E="a b" c\nrun --x=%E%', ["[run] [--x=a b] [c]"]),
        ('set "E=a b"\nrun "--x=%E%" %E%', ["[run] [--x=a b] [a] [b]"]),
        ("set X=1\nset X=\nrun a%X%b %X%", ["[run] [ab]"]),
        ("set X = 1\nrun %X% %X %", ["[run] [%X%]? [1]"]),
        ("set my-name2=1\nrun %MY-Name2%", ["[run] [1]"]),
        ("set A=1\nset B=%A%2\nset A=3\nrun %B%", ["[run] [12]"]),
        ("set N=5\nset N=6& run %N%\nrun %N%", ["[run] [5]", "[run] [6]"]),
        ("(\nset X=1\nrun %X%\n)\nrun %X%", ["[run] [%X%]?", "[run] [1]"]),
        ("setlocal\nset X=1\nendlocal\nrun %X%", ["[run] [%X%]?"]),
        ("set X=1| sort\nrun %X%", ["[sort]", "[run] [%X%]?"]),
        # %
        ('run "50%% off" %PATH', ["[run] [50% off] [PATH]"]),
        ("set X=abc\nrun %X:a=b% %X:~0,2% %X%", ["[run] [%X:a=b%]? [%X:~0,2%]? [abc]"]),
        ("run %1 %~nx0x %*", ["[run] [%1]? [%~nx0x]? [%*]?"]),
        ("set X=1\nrun !X!", ["[run] [!X!]"]),
        ('setlocal enabledelayedexpansion\nset X=1 2\nrun !X! "!X!" !X:1=2!', ["[run] [1] [2] [1 2] [!X:1=2!]?"]),
        # escapes, quotes, redirections, remarks
        ('run a^&b ^^ ^% "^&"', ["[run] [a&b] [^] [^&]"]),
        ('run "a\\"b" "c""d" \\\\"e f" C:\\x\\', ['[run] [a"b] [c"d] [\\e f] [C:\\x\\]']),
        ("run b\\\nrun c^^\nrun d", ["[run] [b\\]", "[run] [c^]", "[run] [d]"]),
        ("2>nul set X=1\n>a.toml (\nrun %X%\n)", ["[run] [1]"]),
        ("run a>log.txt 2>&1\nrun >>log.txt b 2> err <in", ["[run] [a]", "[run] [b]"]),
        ("run a & rem b & run c", ["[run] [a]"]),
        ("rem x & run y\n:: z\n:label\n@echo off\n@run a", ["[run] [a]"]),
        ("rem a ^\nrun b\n:: c ^\nrun d\nrun e", ["[run] [b]", "? [run] [d]", "[run] [e]"]),
        # several commands in a line
        ("set C=0 && run a&run b|run c", ["[run] [a]", "[run] [b]", "[run] [c]"]),
        ("foo || run 1\nfoo && run 2 & run 3", ["[foo]", "? [run] [1]", "[foo]", "? [run] [2]", "[run] [3]"]),
        ("call venv\\Scripts\\activate && cd x && run", ["[venv\\Scripts\\activate]", "[cd] [x]", "[run]"]),
        ('call "C:\\a b\\activate.bat" && run', ["[C:\\a b\\activate.bat]", "[run]"]),
        ("echo y| run a | tee log", ["[run] [a]", "[tee] [log]"]),
        ("accelerate launch sdxl_train.py && run || run 2", ["[accelerate] [launch] [sdxl_train.py]", "[run]", "? [run] [2]"]),
        # blocks
        ("if 1==1 (\nrun a\n) else (\nrun b\n)\nrun c", ["? [run] [a]", "? [run] [b]", "[run] [c]"]),
        ("if a==b (run a) & run b\n(run c) > log", ["? [run] [a]", "? [run] [b]", "[run] [c]"]),
        ('if a==b run --p="a (b)"\nrun (a)', ["? [run] [--p=a (b)]", "[run] [(a)]"]),
        # what does not run
        ("run 1\nif a==b exit /b 1\nrun 2\nexit /b\nrun 3", ["[run] [1]", "[run] [2]"]),
        ("run 1\ngoto :eof\nrun 2", ["[run] [1]"]),
        ("run 1\nexit & run 2", ["[run] [1]"]),
        ("run 0\ngoto L\nrun 1\n:l\nrun 2", ["[run] [0]", "? [run] [1]", "? [run] [2]"]),
        (":top\nrun 0\n:again\nrun 1\nif a==b goto again", ["[run] [0]", "? [run] [1]"]),
        ("call :t 1\nexit /b\n:t\nrun %1\ngoto :eof", ["? [run] [%1]?"]),
        ("venv\\Scripts\\activate.bat\nrun 1", ["[venv\\Scripts\\activate.bat]", "? [run] [1]"]),
        ("set X=1\ncall conda activate a\nrun %X%", ["[conda] [activate] [a]", "[run] [1]"]),
        # commands in commands
        ('start /wait cmd /c "run a && run b"', ["[run] [a]", "? [run] [b]"]),
        ('start "" /b accelerate launch --x "a b"', ["[accelerate] [launch] [--x] [a b]"]),
        ('cmd /c "set X=2 & run"\nrun %X%', ["[run]", "[run] [%X%]?"]),
        ('cmd.exe /s /c ""C:\\p y\\python.exe" a.py --b "c d""', ["[C:\\p y\\python.exe] [a.py] [--b] [c d]"]),
        ('powershell -Command "accelerate launch a.py"', ["? [powershell] [-Command] [accelerate launch a.py]"]),
        ("call accelerate launch --a=1\nrun %X%", ["[accelerate] [launch] [--a=1]", "[run] [%X%]?"]),
    ],
)
def test_cmd(text, expected):
    """Variables before words, escapes, operators, blocks, jumps, and commands that are given to commands."""
    assert batch(text) == expected


def test_the_environment_of_cmd():
    """Every variable that is set is in the environment, by its name in capitals; the blank before && is none of its value."""
    text = "set Cuda_Visible_Devices=0,1 && run\nset CUDA_VISIBLE_DEVICES=\nrun\nset /p CUDA_VISIBLE_DEVICES=\nrun"
    found = [command.environment.get("CUDA_VISIBLE_DEVICES") for command in parse(Path("x.bat"), text).commands]
    assert (found[0].text, found[1], found[2].trouble) == ("0,1", None, "line 4 asks for it")


def test_a_command_of_cmd_has_its_own_lines():
    """Its source is as it stands in the script, and its words know their lines."""
    command = parse(Path("x.bat"), "set A=x y\ncd z & run %A% ^\n  --b ^\n  %A%\nrun").commands[1]
    assert command.text == "run %A% ^\n  --b ^\n  %A%"
    assert [(word.text, word.line) for word in command.words] == [("run", 2), ("x", 2), ("y", 2), ("--b", 3), ("x", 4), ("y", 4)]


# ---- PowerShell


@pytest.mark.parametrize(
    "change",
    [
        "$x *= 20",
        "$x -= 1",
        "$x /= 2; $y = 1",
        "$x++",
        "--$x",
        "$x ??= 2",
        "$x = Get-Content y",
        "$x = Read-Host 'rate'",
        "$x = '2' + '3'",
        "$x = (2)",
        "$x = 2 * 3",
        "$x = $y = 2",
        "$y = $x = 2",
        "$x = if ($y) { 2 } else { 3 }",
        "$x, $y = 1, 2",
        "$x.y = 1",
        "$x[0] = 1",
        "$x.Clear()",
        "[void]($x = 2)",
        "run (($x = 2))",
        "[int]::TryParse('2', [ref]$x)",
        "[int]$x = '2.5'",
        ". .\\my.ps1",
        "Set-Variable x 2",
        "Set-Variable -Name x -Value 2",
        "Invoke-Expression '$x = 2'",
        "'$x = 2' | iex",
        "Get-Date -OutVariable x",
        "if ($y)\n{\n $x = 2\n}",
        "if ($y) { run }\nelse\n{\n $x = 2\n}",
        "if($y){run}elseif($z){$x=2}",
        "try { $x = 2 } catch { run }",
        "try { run } catch { $x = 2 } finally { run }",
        "switch ($y)\n{\n 'a' { $x = 2 }\n default { run }\n}",
        "foreach ($x in 1,2) { run }",
        "for ($x = 0; $x -lt 3; $x++) { run }",
        "while ($x -lt 3) { $x++ }",
        "1, 2 | ForEach-Object { $x = $_ }",
        "1, 2 | %{$x=$_}",
        "function f { $script:x = 2 }\n$x = '1'\nf",
        "function f { $script:x = 2 }\n$x = '1'\n$y = (f)",
        "[scriptblock]$f = { $script:x = 2 }\n$x = '1'\n& $f",
        "$f = { $script:x = 2 }\n$x = '1'\n$f.Invoke()",
        "& { $script:x = 2 }",
        'run "$($x++)"',
        "check && $x = 2",
        "check || ($x = 2)",
    ],
)
def test_a_variable_of_powershell_is_unknown_once_it_may_have_changed(change):
    """Arithmetic, commands, members, blocks and other scripts make a variable unknown, until it gets a plain value."""
    found = power(f"$x = '1'\n{change}\nrun $x\n[string]$x = '3'\nrun $x")
    assert unknown(found[:-1])
    assert found[-1] == "[run] [3]"


@pytest.mark.parametrize(
    "change",
    ["$x[0] = 1", "$x.Remove('a')", "$x.Add($x)", "& { $x.Add('c') }", "if ($y) { $x = @() }", "$x = @{a=1}", "$x += f 'a'"],
)
def test_a_list_of_powershell_is_unknown_once_it_may_have_changed(change):
    """So does a list, of which nothing may be lost."""
    assert power(f"$x = @('a', 'b')\n{change}\nrun @x $x")[-1].split(" ")[1:] in (["[@x]?", "[$x]?"], ["[a]", "[b]", "[f]?"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # quotes
        ('run \'it\'\'s\' "a`"b" "a""b" # c', ['[run] [it\'s] [a"b] [a"b]']),
        ("run “a b” 'c # d' e#f", ["[run] [a b] [c # d] [e#f]"]),
        ('$m="q"\nrun $m/x "$m.z" ${m}x $m.x "$m:x" "a"b a"b"', ["[run] [q/x] [q.z] [qx] [q.x]? [$m:x]? [a] [b] [ab]"]),
        ('$n = "1"\n$a = @"\nx "y" $n `$q\n"@\nrun $a', ['[run] [x "y" 1 $q]']),
        ("$a = @'\nif (x) { $n\n'@\nrun $a", ["[run] [if (x) { $n]"]),
        # values
        ("$x = 1.10; $y = 007; $z = -1; $u = 1e3; $v = 0x10\nrun $x $y $z $u $v", ["[run] [1.1] [7] [-1] [1000] [$v]?"]),
        ("$s = 'a'; $s += 'b'; $n = 1; $n += 1\nrun $s $n", ["[run] [ab] [$n]?"]),
        ("${lr} = '1'; $script:m = $LR\nrun $lr $m $($lr) $($lr.x)", ["[run] [1] [1] [1] [$(1.x)]?"]),
        ("param([string]$lr = '1')\nrun $lr", ["[run] [$lr]?"]),
        # lists
        ("$a = '--x', # one\n  '--y'\nrun $a", ["[run] [--x] [--y]"]),
        ("$a = @()\n$a += '--x'\n$a += @('--y'; '--z')\n[string[]]$b = $a\nrun @b", ["[run] [--x] [--y] [--z]"]),
        (
            "$x = [System.Collections.ArrayList]::new()\n[void]$x.Add('--a')\n$x.Add('--b') | Out-Null\n$null = $x.Add('--c')\n"
            "if ($q) { [void]$x.Add('--d') }\n$x.AddRange(@('--e'))\nrun $x",
            ["[run] [--a] [--b] [--c] [--d]? [--e]"],
        ),
        ("$x = 'q'; run --a=$x,$x 1, 2", ["[run] [--a=q,q] [1,] [2]"]),
        # several commands in a line
        ('$env:CUDA_VISIBLE_DEVICES="0"; run a', ["[run] [a]"]),
        ("cd x && run a; foo && run b; run c", ["[cd] [x]", "[run] [a]", "[foo]", "? [run] [b]", "[run] [c]"]),
        ("foo || run a\nrun b", ["[foo]", "? [run] [a]", "[run] [b]"]),
        ("run a 2>&1 | Tee-Object log\nrun b *>log c >> log 2>$null", ["[run] [a]", "[Tee-Object] [log]", "[run] [b] [c]"]),
        ("run a\n--b 1\n++$n", ["[run] [a]", "[--b] [1]"]),
        ("run a `\n  # remark\n  --b\nrun |\n  sort", ["[run] [a] [--b]", "[run]", "[sort]"]),
        # blocks
        ("if ($x)\n{\nrun a\n}\n# remark\nelse\n{\nrun b\n}\nrun c", ["? [run] [a]", "? [run] [b]", "[run] [c]"]),
        ("do { run a } while ($x)\ntry { run b } finally { run c }", ["? [run] [a]", "? [run] [b]", "? [run] [c]"]),
        ("function f {\n run $a\n}", ["? [run] [$a]?"]),
        ("& { run a; $x = '1'; $env:y = '2' }\nrun $x $env:y", ["[run] [a]", "[run] [$x]? [2]"]),
        # what does not run
        ("run 1\nif ($x) { exit }\nrun 2; exit 0; run 3", ["[run] [1]", "[run] [2]"]),
        ("run 1\nreturn\nrun 2", ["[run] [1]"]),
        # commands in commands
        ("$x = accelerate launch a.py 2>&1", ["[accelerate] [launch] [a.py]"]),
        ("$x = (accelerate launch a.py)", ["[(accelerate launch a.py)]?"]),
        ("if (accelerate launch a.py) { run }", ["? [(accelerate launch a.py)]?", "? [run]"]),
        ('iex "accelerate launch a.py"', ["[iex] [accelerate launch a.py]"]),
        (
            "Start-Process accelerate -ArgumentList 'launch a.py'",
            ["? [Start-Process] [accelerate] [-ArgumentList] [launch a.py]"],
        ),
        ('cmd /c "accelerate launch a.py"', ["? [cmd] [/c] [accelerate launch a.py]"]),
        ("& 'C:\\a b\\python.exe' a.py", ["[C:\\a b\\python.exe] [a.py]"]),
        ("$x = '1'\n. .\\venv\\Scripts\\Activate.ps1\nrun $x", ["[.\\venv\\Scripts\\Activate.ps1]", "[run] [1]"]),
        ("Write-Host 'accelerate launch'; run", ["[run]"]),
    ],
)
def test_powershell(text, expected):
    """Quotes, values, lists, operators, blocks, and commands that are given to commands."""
    assert power(text) == expected


def test_the_environment_of_powershell():
    """$env: is the environment; what another script may set in it is unknown afterwards."""
    text = "$x = '1'; $env:CUDA_VISIBLE_DEVICES = '0'; run\n.\\setup.ps1\nrun\n$Env:cuda_visible_devices = ''\nrun $x"
    found = [command.environment.get("CUDA_VISIBLE_DEVICES") for command in parse(Path("x.ps1"), text).commands]
    assert (found[0].text, found[2].trouble, found[3]) == ("0", "line 2 runs .\\setup.ps1, which may set it", None)


def test_a_guard_of_cmd():
    """A `goto` to where a script ends after an error leaves what follows as it is; any other may leave it out."""
    text = "run 1 || goto :error\nif errorlevel 1 goto fail\nrun 2\ngoto :eof\n:error\n:fail\necho no\n"
    assert batch(text) == ["[run] [1]", "[run] [2]"]
    assert batch("run 1 || goto :next\nrun 2\n:next\n") == ["[run] [1]", "? [run] [2]"]


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("x.bat", 'set X=1\nrun "a', "a quote"),
        ("x.bat", 'set X=1\nrun --d="C:\\a\\" --b', "a quote"),
        ("x.bat", 'set X=1\nrun "a ^\n  b"', "a quote"),
        ("x.bat", "set X=1\nif a==b (\nrun", "a block"),
        ("x.ps1", "$x = 1\nrun 'a", "a quote"),
        ("x.ps1", "$x = 1\n$a = @(1,\n2", "a list"),
        ("x.ps1", "$x = 1\nif ($x) {\nrun", "a block"),
        ("x.ps1", "$x = 1\n$a = @'\nb", "a here-string"),
        ("x.ps1", "$x = 1\n<# run", "a remark"),
    ],
)
def test_what_windows_shells_find_not_closed(name, text, what):
    """A quote, a list, a block or a remark without an end is an error with the line where it begins."""
    with pytest.raises(InputError, match=rf"{name}:2: {what}.* begins here and does not end"):
        parse(Path(name), text)


def test_a_launch_of_windows_is_read_or_refused(read):
    """A launch behind an `if` is refused with the reason, and one behind a variable that was changed too."""
    launch = "accelerate launch --num_processes=1 sdxl_train.py --pretrained_model_name_or_path=D:\\m.safetensors --in_json=D:\\p\\m.json"
    found = read(train__bat=f"set EXTRA=--seed 3 --gradient_checkpointing\nset CUDA_VISIBLE_DEVICES=0 && {launch} %EXTRA%\n")
    assert found.runs[0].fields["seed"] == 3
    with pytest.raises(InputError, match=r"train\.ps1:3: it depends on the `if` of line 1, so nobody knows whether it trains"):
        read(train__ps1=f"if ($x)\n{{\n{launch} --seed 3\n}}\n")
    with pytest.raises(InputError, match="line 2 calculates it"):
        read(train__bat=f"set N=20\nset /a N=%N%*5\n{launch} --seed 3 --max_train_steps=%N%\n")
