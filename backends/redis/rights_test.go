package redis

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// rights.lua tries what the other scripts call: no less, or Open would miss a right that is
// needed, and no more, or it would ask for one that is not.
func TestRightsAreThoseOfScripts(t *testing.T) {
	called := func(pattern string, files ...string) (commands []string) {
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(pattern).FindAllSubmatch(text, -1) {
				if c := string(m[1]); !slices.Contains(commands, c) {
					commands = append(commands, c)
				}
			}
		}
		slices.Sort(commands)
		return commands
	}
	files, err := filepath.Glob("lua/*.lua")
	if err != nil {
		t.Fatal(err)
	}
	const rights = "lua/rights.lua"
	others := slices.DeleteFunc(files, func(f string) bool { return f == rights })
	want := called(`redis\.p?call\('([A-Z]+)'`, others...)
	got := called(`try\('([A-Z]+)'`, rights)
	if len(want) < 10 || !slices.Equal(got, want) {
		t.Errorf("rights.lua tries %v; the scripts call %v", got, want)
	}
}

// Redis 5 is the oldest server: of what is newer, a script calls only what it has asked for first
// (REDIS_VERSION_NUM came with Redis 7).
func TestScriptsAreForRedis5(t *testing.T) {
	newer := []*regexp.Regexp{
		regexp.MustCompile(`'(KEEPTTL|EXAT|PXAT|GETEX|GETDEL|EXPIRETIME|COPY|ZMSCORE|ZMPOP|LMOVE|ZRANGESTORE|ZRANDMEMBER)'`),
		regexp.MustCompile(`'P?EXPIRE(AT)?'(, [^,()]+){2},`),  // NX, XX, GT, LT
		regexp.MustCompile(`'SET'.*'GET'`),                    // also NX with GET
		regexp.MustCompile(`'ZADD'.*'(GT|LT)'`),               // Redis 6.2
		regexp.MustCompile(`'ZRANGE'.*'(BYSCORE|BYLEX|REV)'`), // Redis 6.2
		regexp.MustCompile(`'ZRANK'.*'WITHSCORE'`),            // Redis 7.2
		regexp.MustCompile(`'SCAN'.*'TYPE'`),                  // Redis 6
		regexp.MustCompile(`redis\.(setresp|acl_check_cmd)`),
	}
	guarded := regexp.MustCompile(`'PEXPIRETIME'`)
	files, err := filepath.Glob("lua/*.lua")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		before := ""
		for line := range strings.Lines(string(text)) {
			code, _, _ := strings.Cut(line, "--")
			for _, r := range newer {
				if found := r.FindString(code); found != "" {
					t.Errorf("%s calls %s, which Redis 5 does not know", file, found)
				}
			}
			if guarded.MatchString(code) && !strings.Contains(before+code, "redis.REDIS_VERSION_NUM") {
				t.Errorf("%s calls PEXPIRETIME without asking for the version: %s", file, code)
			}
			before = code
		}
	}
}

func TestTags(t *testing.T) {
	if got := crc16([]byte("123456789")); got != 0x31C3 {
		t.Errorf("%#x", got) // the value that the Cluster specification gives
	}
	for _, slot := range []uint16{0, 1, 8191, 16383} {
		if tag := tagOf(slot); crc16([]byte(tag))%slots != slot {
			t.Errorf("%q is not in slot %d", tag, slot)
		}
	}
	l := newLayout("lockstep")
	for _, key := range []string{l.probeKey("0"), l.probeKey("16383")} {
		if l.isLock(key) || !strings.HasPrefix(key, "lockstep:") {
			t.Errorf("%q", key)
		}
	}
}
