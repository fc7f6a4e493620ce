"""Scripts are read as their shells would read them, and what only a shell knows is said to be so."""

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
        ("x.sh", "f() {\n M=1\n}\nrun $M", "it depends on the `function` of line 1"),
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
        ("x.bat", "run %~dp0x", "only the shell knows %~dp0"),
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
    """`cd` moves what follows, within a subshell that alone; to the script's own folder it moves nothing, for us."""
    text = 'run\ncd /a\nrun\n(cd b; run)\ncd ../c && run\ncd "$(dirname "$0")"\nrun\ncd $D\nrun'
    assert [one.folder for one in parse(Path("x.sh"), text).commands if one.words[0].text == "run"] == [
        "", "/a", "/a/b", "/c", "", "$D",
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
    assert [one.writes["a"] for one in found if one.words[0].text == "run"] == ["1\n", "1\n2\n", "3\n"]


def test_a_file_that_a_script_writes():
    """`cat > FILE <<EOF` is read as that file, with variables filled in unless the mark is quoted."""
    assert parse(Path("x.sh"), 'D=/d\ncat > a.toml <<EOF\nx = "$D"\nEOF\nrun').commands[-1].writes == {"a.toml": 'x = "/d"\n'}
    assert parse(Path("x.sh"), "D=/d\ncat <<'EOF' > a.toml\nx = \"$D\"\nEOF\n").commands[-1].writes == {"a.toml": 'x = "$D"\n'}


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
