"""Scripts are read as their shells would read them, and what only a shell knows is said to be so."""

import os
from pathlib import Path

import pytest

from astolfo.errors import InputError
from astolfo.kohya.shell import parse, read


def words(text, name="x.sh"):
    """The words of each command of a script."""
    return [[word.text for word in command.words] for command in parse(Path(name), text).commands]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run --a \"b c\" --d='e $f'", [["run", "--a", "b c", "--d=e $f"]]),
        ("run --a \\\n  --b # a remark\n# another 'one\n", [["run", "--a", "--b"]]),
        ('M="/a b"/c\nrun "$M" ${M}.x', [["run", "/a b/c", "/a b/c.x"]]),
        ("A='1 2'\nrun $A \"$A\"", [["run", "1", "2", "1 2"]]),
        ("run ${LR:-1e-5} ${LR:=2e-5} $LR", [["run", "1e-5", "2e-5", "2e-5"]]),
        ('A=(--x 1\n  --y  # why\n)\nA+=(--z)\nrun "${A[@]}"', [["run", "--x", "1", "--y", "--z"]]),
        ("S=a; S+=b\nrun $S", [["run", "ab"]]),
        ("for s in 1 2; do\n run --seed $s\ndone", [["run", "--seed", "1"], ["run", "--seed", "2"]]),
        ("cd x && run a 2>&1 | tee log > /dev/null &\nrun b", [["cd", "x"], ["run", "a"], ["tee", "log"], ["run", "b"]]),
        ("(run a); { run b; }", [["run", "a"], ["run", "b"]]),
        ("run a\\ b 'c'\"d\"e#f", [["run", "a b", "cde#f"]]),
        ("run $'a\\tb' $\"c\" \\ \n  d", [["run", "a\tb", "c", "d"]]),
        ("for i in {1..2} {a,b}; do run $i; done", [["run", one] for one in "12ab"]),
        ("run /d/{x,y} '{a,b}' ${A:-{}} {08..10}", [["run", "/d/x", "/d/y", "{a,b}", "{}", "08", "09", "10"]]),
        ("A=1\n(A=2; run $A)\nB=3 run $A", [["run", "2"], ["run", "1"]]),
        ("eval 'run 1'\nexport A=2\nnohup bash -lc 'run $A' &\nexit\nrun 3", [["run", "1"], ["run", "2"]]),
        ("{ run a; } > log 2>&1\nrun b &&\n run c", [["run", "a"], ["run", "b"], ["run", "c"]]),
        ("if run a; then run b; fi\nbash <<E\nrun c\nE", [["run", "a"], ["run", "b"], ["run", "c"]]),
        ('A=(1 2)\nrun ${A[@]+"${A[@]}"} $(echo ")" | tr a b)', [["run", "1", "2", '$(echo ")" | tr a b)']]),
        ("source venv/bin/activate\nA=1\n. ~/.bashrc\nrun $A", [["run", "1"]]),
    ],
)
def test_a_posix_shell(text, expected):
    """Quotes, continuations, remarks, variables, lists, loops and redirections of a POSIX shell."""
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '@echo off\nrem x\nset M=D:\\a b\\c\nrun --m="%M%" ^\n  --n 1 ^\n  --o\n',
            [["run", "--m=D:\\a b\\c", "--n", "1", "--o"]],
        ),
        ('set "A=x"\nSET B=%a%y\nrun %B% && run 2\n:: z\npause', [["run", "xy"], ["run", "2"]]),
    ],
)
def test_windows_shell(text, expected):
    """Continuations, variables (of any case) and remarks of a .bat file."""
    assert words(text, "x.bat") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '$m = "C:/a b" # why\n$lr = 1e-5\nrun --m="$m/x" `\n  --lr=$lr --n \'$m\'\n',
            [["run", "--m=C:/a b/x", "--lr=1E-05", "--n", "$m"]],
        ),
        ("$a = @(\n  \"--x=1\", # one\n  '--y'\n)\n<# run no #>\n& run @a", [["run", "--x=1", "--y"]]),
    ],
)
def test_powershell(text, expected):
    """Continuations, variables, lists and remarks of PowerShell."""
    assert words(text, "x.ps1") == expected


def test_the_marks_of_another_shell():
    """A script whose lines are continued as Windows does it is read so, whatever it is called."""
    assert words("run ^\n --a\n", "x.sh") == words("run `\n --a\n", "x.txt") == [["run", "--a"]]


@pytest.mark.parametrize(
    ("name", "text", "trouble"),
    [
        ("x.sh", "run $(date)", "only the shell knows $(date)"),
        ("x.sh", "run `date`", "only the shell knows `date`"),
        ("x.sh", 'run "$DATA/x"', "the script does not set DATA"),
        ("x.sh", "if test a; then M=1; fi\nrun $M", "it depends on the `if` of line 1"),
        ("x.sh", "f() {\n M=1\n}\nrun $M", "the script does not set M"),
        ("x.sh", "M=1\nf() {\n M=2\n}\nf\nrun $M", "line 5 calls f, which may set it"),
        ("x.sh", "f() ( M=2; run $M )", "it stands in the function f of line 1"),
        ("x.sh", "M=1\nis_big a && M=2\nrun $M", "it is set only where the command of line 2 succeeds"),
        ("x.sh", "M=1\n{ [ a ]; } && M=2\nrun $M", "it depends on the test of line 2"),
        ("x.sh", "if a; then if b; then c; fi; M=2; fi\nrun $M", "it depends on the `if` of line 1"),
        ("x.sh", "run ${A+x}", "only the shell knows ${A+x}"),
        ("x.sh", "M=1\n[ $A ] && M=2\nrun $M", "it depends on the test of line 2"),
        ("x.sh", "M=1; [[ $A == b ]] && echo x && M=2\nrun $M", "it depends on the test of line 1"),
        ("x.sh", "M=$1; [ $M ] || M=2\nrun $M", "it depends on whether the command of line 1 fails"),
        ("x.sh", "M=1\nread -p 'M? ' M\nrun $M", "`read` of line 2 sets M"),
        ("x.sh", "M=1\n((M *= 2))\nrun $M", "the arithmetic of line 2 changes M"),
        ("x.sh", "M=1\nlet M++\nrun $M", "the arithmetic of line 2 changes M"),
        ("x.sh", "for ((M=0; M<3; M++)); do true; done\nrun $M", "the arithmetic of line 1 changes M"),
        ("x.sh", "M=1\nprintf -v M %s 2\nrun $M", "`printf` of line 2 sets M"),
        ("x.sh", "M=1\nunset M\nrun $M", "the script does not set M"),
        ("x.sh", "M=1\n. other.sh\nrun $M", "line 2 runs other.sh, which is not here and may set it"),
        ("x.sh", "M=1\neval $(other)\nrun $M", "`eval` of line 2 may set it"),
        ("x.sh", "M=(1 2)\nM[0]=3\nrun ${M[@]}", "line 2 changes a part of M"),
        ("x.sh", "run *.txt", "only the shell knows which files *.txt stands for"),
        ("x.sh", 'run "$1"', "only the shell knows $1"),
        ("x.bat", "run %~nx0x", "only the shell knows %~nx0"),
        ("x.bat", "run %HOME%", "the script does not set HOME"),
        ("x.ps1", "run $home", "the script does not set home"),
    ],
)
def test_what_only_the_shell_knows(name, text, trouble):
    """A word that cannot be known says why, and is no error by itself."""
    assert parse(Path(name), text).commands[-1].words[-1].trouble == trouble


def test_the_environment_of_a_command():
    """Exported variables and those before a command are its environment."""
    script = parse(Path("x.sh"), "export A=1\nB=2\nC=3 run\nA=4\nrun\nunset A\nrun\nif x; then export D=1; fi\nrun")
    found = [{name: word.text for name, word in command.environment.items()} for command in script.commands]
    assert found == [{"A": "1", "C": "3"}, {"A": "4"}, {}, {}, {"D": "1"}]
    assert script.commands[-1].environment["D"].trouble


def test_the_folder_of_a_command():
    """`cd` moves what follows, within a subshell that alone; where it may lead elsewhere, nobody knows the folder."""
    text = 'run\ncd /a\nrun\n(cd b; run)\ncd ../c && run\ncd "$(dirname "$0")"\nrun\ncd $D\nrun'
    here = os.getcwd()
    assert [one.folder for one in parse(Path("x.sh"), text).commands if one.words[0].text == "run"] == [
        "", "/a", "/a/b", "/c", here, "$D",
    ]  # fmt: skip
    text = "pushd /a\npushd b\npopd\nrun\ncd -\nrun\ncd /c || cd /d\nrun\nif x; then cd /e; fi\nrun"
    assert [one.folder for one in parse(Path("x.sh"), text).commands if one.words[0].text == "run"] == [
        "/a", "$FOLDER_OF_LINE_5", "$FOLDER_OF_LINE_7", "$FOLDER_OF_LINE_9",
    ]  # fmt: skip


def test_a_script_that_another_one_runs(tmp_path):
    """What it sets is known where it is at hand; a command in it stands elsewhere, which is its trouble."""
    (tmp_path / "other.sh").write_text("M=2\nrun in-other\nreturn\nM=3\n")
    found = parse(tmp_path / "x.sh", "M=1\nsource other.sh\nrun $M").commands
    assert [[word.text for word in one.words] for one in found] == [["run", "in-other"], ["run", "2"]]
    assert [one.trouble for one in found] == [f"it stands in {tmp_path}/other.sh, which line 2 of x.sh runs", ""]


def test_a_file_that_is_written_twice():
    """Each command sees a file as it stands by then; >> goes on at its end."""
    text = "cat > a <<E\n1\nE\nrun\ncat >> a <<E\n2\nE\nrun\ntee a <<E\n3\nE\nrun"
    found = parse(Path("x.sh"), text).commands
    assert [one.writes["a"].text for one in found if one.words[0].text == "run"] == ["1\n", "1\n2\n", "3\n"]


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ("if x; then M=1; fi\ncat > a <<E\nb\n$M\nE", {2: "it depends on the `if` of line 1"}),
        ("cat > a <<E\nb\nE\ncat >> a <<E\n$M\nE", {2: "the script does not set M"}),
        ("if x; then\ncat > a <<E\nb\nE\nfi", {0: "it depends on the `if` of line 1"}),
        ("echo b > a", {}),
        ("echo b >> a", {0: "the script writes at its end, and its beginning is not known"}),
        ("make-it > a", {0: "line 1 writes it by `make-it`"}),
        ("cat > a <<E\nb\nE\nsed -i s/b/c/ a", {0: "line 4 writes it by `sed`"}),
        ("cp b a", {0: "line 1 writes it by `cp`"}),
        ("@echo off\necho b > a", {0: "line 2 writes it"}),
        ("$x = 1\n'b' | Out-File a", {0: "line 2 writes it by `out-file`"}),
        ("$x = 1\nmake-it > 'a'", {0: "line 2 writes it"}),
    ],
)
def test_a_file_of_which_not_all_is_known(text, trouble):
    """What a script writes has the trouble of its variables by line, and that of the whole file under 0."""
    name = "x.bat" if text.startswith("@") else "x.ps1" if text.startswith("$") else "x.sh"
    assert parse(Path(name), f"{text}\nrun").commands[-1].writes["a"].trouble == trouble


def test_the_script_s_own_folder(tmp_path):
    """The ways in which a script asks for its folder, and for the one that it stands in."""
    for ask in ('$(dirname "$0")', "${0%/*}", '$(cd -- "$( dirname -- "${BASH_SOURCE[0]}" )" &> /dev/null && pwd)', "$PWD", "$(pwd)",
                '$(realpath "$(dirname "$0")")', "`dirname $0`"):  # fmt: skip
        assert parse(tmp_path / "x.sh", f'D="{ask}"\nrun "$D"/a').commands[-1].words[1].text == f"{tmp_path}/a", ask
    (tmp_path / "vars.sh").write_text("M=2\n")
    assert parse(tmp_path / "x.sh", 'M=1\n. "$(dirname "$0")/vars.sh"\nrun $M').commands[-1].words[1].text == "2"
    assert parse(tmp_path / "x.bat", "run %~dp0a\\b").commands[-1].words[1].text == f"{tmp_path}/a\\b"
    assert parse(tmp_path / "x.ps1", 'run "$PSScriptRoot\\a"').commands[-1].words[1].text == f"{tmp_path}\\a"


def test_a_default_is_taken_and_said():
    """${NAME:-VALUE} of a variable that the script does not set is its value, and the import says so."""
    found = parse(Path("x.sh"), "A=${1:-/m}\nrun $A ${B:-} ${C[@]+x}")
    assert [word.text for word in found.commands[-1].words] == ["run", "/m", "${C[@]+x}"]
    assert found.remarks == (
        "1: the script does not set 1, so ${1:-/m} is taken for '/m'.", "2: the script does not set B, so ${B:-} is taken for ''.",
    )  # fmt: skip


def test_loops_that_are_left():
    """`continue` and `break` are followed; where nobody knows whether they come, the rest may not run."""
    assert words("for a in 1 2 3; do\n run $a\n break\n run x\ndone\nfor a in 1 2; do run $a; continue; run x; done") == [
        ["run", "1"], ["run", "1"], ["run", "2"],
    ]  # fmt: skip
    text = "for a in 1 2; do run $a; [ $a = 1 ] && continue; run x$a; done\nrun y"
    found = [(one.words[1].text, bool(one.trouble)) for one in parse(Path("x.sh"), text).commands if one.words[0].text == "run"]
    assert found == [("1", False), ("x1", True), ("2", False), ("x2", True), ("y", False)]


def test_a_file_that_a_script_writes():
    """`cat > FILE <<EOF` is read as that file, with variables filled in unless the mark is quoted."""
    assert parse(Path("x.sh"), 'D=/d\ncat > a.toml <<EOF\nx = "$D"\nEOF\nrun').commands[-1].writes["a.toml"].text == 'x = "/d"\n'
    assert parse(Path("x.sh"), "D=/d\ncat <<'EOF' > a.toml\nx = \"$D\"\nEOF\n").commands[-1].writes["a.toml"].text == 'x = "$D"\n'


@pytest.mark.parametrize("text", ['run "a', "run 'a", "A=(1 2", "if x; then\nrun", "cat <<EOF\nx\n"])
def test_what_is_not_closed_is_an_error_with_its_line(text):
    """A quote, list, block or here-document without an end is an error that says where it begins."""
    with pytest.raises(InputError, match=r"x\.sh:1: .* begins here and does not end"):
        parse(Path("x.sh"), text)


def test_line_ends_and_encodings_of_windows(tmp_path):
    """CRLF, a byte order mark and PowerShell's UTF-16 are read."""
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "x.bat").write_bytes("run a ^\r\n b\r\n".encode(encoding))
        assert [word.text for word in read(tmp_path / "x.bat").commands[0].words] == ["run", "a", "b"]
    (tmp_path / "y.sh").write_bytes(b"\x80\x81")
    with pytest.raises(InputError, match="found bytes that are not UTF-8"):
        read(tmp_path / "y.sh")
