//go:build linux

package command

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/lockstep-go/lockstep/internal/redistest"
)

// screen is a terminal with a program in it.
type screen struct {
	t   *testing.T
	pty *os.File
	cmd *exec.Cmd

	mu   sync.Mutex
	text string
	news chan struct{}
	from int // what has been looked at
}

// open runs a program as the leader of a session of its own on a new terminal.
func openScreen(t *testing.T, url string, name string, args ...string) *screen {
	t.Helper()
	lookedAt()
	s := &screen{t: t, cmd: exec.Command(name, args...), news: make(chan struct{}, 1)}
	s.cmd.Env = append(os.Environ(), "LOCKSTEP_CONFIG="+url, "L="+program, "PS1=prompt> ", "TERM=dumb", "HISTFILE=", "ENV=")
	master, err := pty.Start(s.cmd)
	if err != nil {
		t.Fatal(err)
	}
	// A read that blocks in the kernel would keep the terminal open after its Close.
	fd, err := syscall.Dup(int(master.Fd()))
	if err == nil {
		err = syscall.SetNonblock(fd, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	syscall.CloseOnExec(fd)
	s.pty = os.NewFile(uintptr(fd), "pty")
	master.Close()
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := s.pty.Read(buf)
			s.mu.Lock()
			s.text += string(buf[:n])
			s.mu.Unlock()
			select {
			case s.news <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		s.pty.Close()
		_ = s.cmd.Wait()
	})
	return s
}

// shell is an interactive bash, with job control.
func shell(t *testing.T, url string) *screen {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatalf("this test needs a shell with job control: %v", err)
	}
	s := openScreen(t, url, bash, "--norc", "--noprofile", "-i")
	s.sees("prompt> ")
	return s
}

// types sends keys.
func (s *screen) types(keys string) {
	s.t.Helper()
	if _, err := io.WriteString(s.pty, keys); err != nil {
		s.t.Fatal(err)
	}
}

// sees waits until the screen shows text after what was seen before.
func (s *screen) sees(text string) {
	s.t.Helper()
	for end := time.After(patience); ; {
		s.mu.Lock()
		i := strings.Index(s.text[s.from:], text)
		if i >= 0 {
			s.from += i + len(text)
		}
		all := s.text
		s.mu.Unlock()
		if i >= 0 {
			return
		}
		select {
		case <-s.news:
		case <-end:
			s.t.Fatalf("the screen does not show %q:\n%s", text, all)
		}
	}
}

// all is everything that was shown.
func (s *screen) all() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text
}

const (
	ctrlC = "\x03"
	ctrlZ = "\x1a"
)

// A command reads from the terminal, and shares it with the shell as it would without lockstep.
func TestTerminal(t *testing.T) {
	t.Parallel()
	srv, key := redistest.Single(t), newKey()
	s := shell(t, srv.URL())

	// Typed in two parts, so that the echo is not taken for the output.
	s.types("$L run " + key + " -- sh -c 'read -r x </dev/tty; echo got\"\"ten $x'\n")
	until(t, "the command runs", func() bool { return held(t, srv, key) })
	s.types("words\n")
	s.sees("gotten words")
	s.sees("prompt> ")

	// Ctrl-C ends the command, and the shell sees why.
	s.types("$L run " + key + " -- sleep 60\n")
	until(t, "the command runs", func() bool { return held(t, srv, key) })
	time.Sleep(100 * time.Millisecond) // between the grant and the start of the command
	s.types(ctrlC)
	s.sees("prompt> ")
	s.types("echo co\"\"de $?\n") // bash would leave out what stands behind it on its line
	s.sees("code 130")
	s.sees("prompt> ")

	// While it waits, too.
	holder := start(t, srv.URL(), sh(key, "echo; exec sleep 60"))
	holder.line()
	s.types("$L run " + key + " -- sleep 60\n")
	s.sees("waiting for")
	s.types(ctrlC)
	s.sees("prompt> ")
	s.types("echo co\"\"de $?\n") // bash would leave out what stands behind it on its line
	s.sees("code 130")
	s.sees("prompt> ")
}

// A script that starts lockstep ends with it at Ctrl-C, as it would with the command itself.
func TestTerminalScript(t *testing.T) {
	t.Parallel()
	srv, key := redistest.Single(t), newKey()
	s := shell(t, srv.URL())
	file := t.TempDir() + "/script"
	if err := os.WriteFile(file, []byte("$L run "+key+" -- sleep 60\necho went on\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.types("bash " + file + "\n")
	until(t, "the command runs", func() bool { return held(t, srv, key) })
	time.Sleep(100 * time.Millisecond)
	s.types(ctrlC)
	s.sees("prompt> ")
	s.types("echo co\"\"de $?\n") // bash would leave out what stands behind it on its line
	s.sees("code 130")
	if all := s.all(); strings.Contains(all, "went on") {
		t.Errorf("the script went on:\n%s", all)
	}
}

// Ctrl-Z stops the command and lockstep; fg resumes both, with the terminal.
func TestTerminalJobControl(t *testing.T) {
	t.Parallel()
	srv, key := redistest.Single(t), newKey()
	s := shell(t, srv.URL()+"?validity=1m")
	s.types("$L run " + key + " -- sh -c 'read -r x; echo got\"\"ten $x'\n")
	until(t, "the command runs", func() bool { return held(t, srv, key) })
	time.Sleep(100 * time.Millisecond)
	s.types(ctrlZ)
	s.sees("Stopped")
	s.sees("prompt> ")
	s.types("fg\n")
	s.sees("$L run")
	s.types("words\n")
	s.sees("gotten words")
	s.sees("prompt> ")

	// In the background it may run, but is stopped when it reads; fg gives it the terminal.
	s.types("$L run " + key + " -- sh -c 'echo run\"\"ning; read -r x; echo got\"\"ten $x' &\n")
	s.sees("running")
	s.types("\n")
	until(t, "the shell sees that it is stopped", func() bool {
		s.types("jobs\n")
		time.Sleep(50 * time.Millisecond)
		s.mu.Lock()
		defer s.mu.Unlock()
		return strings.Contains(s.text[s.from:], "Stopped")
	})
	s.types("fg\n")
	s.sees("$L run")
	time.Sleep(100 * time.Millisecond)
	s.types("more\n")
	s.sees("gotten more")
}

// While it is suspended nothing renews the lock. When it is resumed after that, the command is
// ended rather than continued.
func TestTerminalLossWhileSuspended(t *testing.T) {
	t.Parallel()
	srv, key := redistest.Single(t), newKey()
	s := shell(t, srv.URL()+"?validity=2s")
	file := t.TempDir() + "/script"
	script := `trap "echo continued" CONT; trap "echo terminated; exit 3" TERM; sleep 60 & wait; echo went on`
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	s.types("$L run " + key + " -- sh " + file + "\n")
	until(t, "the command runs", func() bool { return held(t, srv, key) })
	time.Sleep(100 * time.Millisecond)
	s.types(ctrlZ)
	s.sees("Stopped")
	until(t, "the lock is free", func() bool { return !held(t, srv, key) })
	s.types("fg; echo fg-co\"\"de $?\n")
	s.sees("terminated")
	s.sees("fg-code 120")
	// Both signals are there when it resumes, so that a shell may carry out both traps.
	if before, after, _ := strings.Cut(s.all(), "terminated"); strings.Contains(before, "continued") || strings.Contains(after, "went on") {
		t.Errorf("the command went on before it was ended:\n%s", s.all())
	}
}

// Where nobody could resume it, as in a container's terminal, Ctrl-Z does nothing.
func TestTerminalWithoutShell(t *testing.T) {
	t.Parallel()
	srv, key := redistest.Single(t), newKey()
	s := openScreen(t, srv.URL(), program, "run", key, "--", "sh", "-c", "echo ready; read -r x; echo got $x; exit 4")
	s.sees("ready")
	s.types(ctrlZ)
	s.types("words\n")
	s.sees("got words")
	_ = s.cmd.Wait()
	if got := s.cmd.ProcessState.ExitCode(); got != 4 {
		t.Errorf("exit code %d", got)
	}
}

// A terminal that closes sends SIGHUP, and the command ends with it.
func TestTerminalHangup(t *testing.T) {
	t.Parallel()
	srv, key := redistest.Single(t), newKey()
	s := openScreen(t, srv.URL(), program, "run", key, "--", "sh", "-c", "echo $$ $$; exec sleep 60")
	s.sees("\r\n")
	var pid int
	_, err := fmt.Sscan(s.all(), &pid)
	if err != nil {
		t.Fatal(err)
	}
	s.pty.Close()
	until(t, "the command has ended", func() bool { return !alive(pid) })
	_ = s.cmd.Wait()
	if status := s.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGHUP {
		t.Errorf("it ended with %s", s.cmd.ProcessState)
	}
	if held(t, srv, key) {
		t.Error("the lock is still held")
	}
}

// A table fits the terminal, whatever is in it.
func TestTerminalTable(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	start(t, srv.URL(), sh(strings.Repeat("key", 40), "echo; exec sleep 60", "--note", strings.Repeat("note", 40))).line()
	s := shell(t, srv.URL())
	for _, columns := range []int{100, 60, 40} {
		s.types(fmt.Sprintf("stty cols %d; clear; $L ls | cat >/dev/null; $L ls; echo e\"\"nd\n", columns))
		s.sees("KEY")
		s.mu.Lock()
		from := s.from - len("KEY")
		s.mu.Unlock()
		s.sees("end")
		s.mu.Lock()
		lines := strings.Split(s.text[from:s.from-len("end")], "\r\n")
		s.mu.Unlock()
		if len(lines) != 3 {
			t.Errorf("%d columns: %q", columns, lines)
		}
		for _, line := range lines {
			if n := len([]rune(line)); n > columns {
				t.Errorf("%d columns: a line of %d: %q", columns, n, line)
			}
		}
	}
}
