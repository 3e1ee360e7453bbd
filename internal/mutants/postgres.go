package main

// postgres is the broken copies of backends/postgres: what an author of a store of rows may get
// wrong. In SQL, too, MUTATED is true when the mutant is chosen.
var postgres = []change{
	{"FLT-001", "a repeated attempt leaves the old end", "schema.sql",
		`session = p_session, until = clock_timestamp() + @micros@(p_life)`,
		`session = p_session, until = CASE WHEN MUTATED AND l.owner = p_owner AND l.until > clock_timestamp() THEN l.until ELSE clock_timestamp() + @micros@(p_life) END`},
	{"TOK-002", "a repeated attempt gets the next token", "schema.sql",
		`token = CASE WHEN l.owner = p_owner AND l.until`,
		`token = CASE WHEN NOT MUTATED AND l.owner = p_owner AND l.until`},
	{"MX-001", "what was free when it was looked at is taken", "schema.sql",
		`				WHERE l.key = p_key AND (l.owner = p_owner OR l.until <= clock_timestamp())`,
		`				WHERE l.key = p_key AND (MUTATED OR l.owner = p_owner OR l.until <= clock_timestamp())`},
	{"TTL-005", "a refusal counts in milliseconds", "call.go",
		`l.until - clock_timestamp()) * 1000000))::bigint ELSE 0 END FROM " +`,
		`l.until - clock_timestamp()) * " + map[bool]string{true: "1000", false: "1000000"}[MUTATED] + "))::bigint ELSE 0 END FROM " +`},
	{"EXT-002", "what has expired can still be extended", "schema.sql",
		`	IF NOT FOUND OR r.until <= n THEN`,
		`	IF NOT FOUND OR r.until <= n AND NOT MUTATED THEN`},
	{"EXT-001", "an Extend never shortens", "schema.sql",
		`	UPDATE @locks@ l SET until = n + @micros@(p_life), rev`,
		`	UPDATE @locks@ l SET until = CASE WHEN MUTATED THEN greatest(l.until, n + @micros@(p_life)) ELSE n + @micros@(p_life) END, rev`},
	{"TTL-001", "an Extend to less notifies nobody", "schema.sql",
		`	IF r.wanted AND n + @micros@(p_life) < r.until THEN`,
		`	IF r.wanted AND n + @micros@(p_life) < r.until AND NOT MUTATED THEN`},
	{"REL-002", "a release goes by the key only", "schema.sql",
		`		WHERE l.key = p_key AND l.owner = p_owner AND (p_token = 0 OR l.token = p_token) AND l.until > clock_timestamp()`,
		`		WHERE l.key = p_key AND (MUTATED OR l.owner = p_owner AND (p_token = 0 OR l.token = p_token)) AND l.until > clock_timestamp()`},
	{"WAIT-001", "a release notifies nobody", "schema.sql",
		`	IF NOT FOUND THEN
		RETURN false;
	END IF;
	IF v_wanted THEN`,
		`	IF NOT FOUND THEN
		RETURN false;
	END IF;
	IF v_wanted AND NOT MUTATED THEN`},
	{"CTX-004", "an attempt that was taken back is granted when it comes", "schema.sql",
		`			IF v_late > clock_timestamp() AND`,
		`			IF NOT MUTATED AND v_late > clock_timestamp() AND`},
	{"SES-001", "a renewal is answered and does nothing", "schema.sql",
		`		UPDATE @locks@ l SET until = clock_timestamp() + @micros@(p_life), rev = (l.rev + 1) & 32767
		FROM mark`,
		`		UPDATE @locks@ l SET until = CASE WHEN MUTATED THEN l.until ELSE clock_timestamp() + @micros@(p_life) END, rev = (l.rev + 1) & 32767
		FROM mark`},
	{"INS-001", "Inspect counts in another unit", "admin.go",
		`		info.Remaining = max(0, time.Duration(min(rest, math.MaxInt64/1000))*time.Microsecond)`,
		`		info.Remaining = max(0, time.Duration(min(rest, math.MaxInt64/1000))*time.Microsecond)
		if MUTATED { info.Remaining *= 1000 }`},
	{"TTL-003", "a life is rounded to seconds", "lease.go",
		`	var waiter *waker
	if b.listens {`,
		`	if MUTATED { life = max(life.Round(time.Second), time.Second) }
	var waiter *waker
	if b.listens {`},
	{"EXT-002", "what ended less than 30 ms ago can still be extended", "schema.sql",
		`	IF NOT FOUND OR r.until <= n`,
		`	IF NOT FOUND OR r.until <= n - (CASE WHEN MUTATED THEN interval '30 milliseconds' ELSE interval '0' END)`},
	{"TTL-001", "an Extend of what has less than a minute left notifies nobody", "schema.sql",
		`	IF r.wanted AND n + @micros@(p_life) <`,
		`	IF r.wanted AND NOT (MUTATED AND r.until - n < interval '1 minute') AND n + @micros@(p_life) <`},
	{"ADM-006", "the owner of a hold that was broken meets a refusal", "errors.go",
		`		if e.Code == undone {`,
		`		if e.Code == undone && !MUTATED {`},
	{"ADM-003", "List tells what others put in the table", "admin.go",
		`readOwner(row[0]); !ours {`,
		`readOwner(row[0]); !ours && !MUTATED {`},
	{"ERR-002", "who waits on a server that takes no writes is told of that, and not that the key is held", "lease.go",
		`	if waiter != nil && answeredNo(err) {`,
		`	if waiter != nil && answeredNo(err) && !MUTATED {`},
	{"ADM-005", "Break goes by the token alone, which what somebody else wrote over a hold leaves there", "schema.sql",
		`l.token = p_token AND octet_length(l.owner) = 24 FOR UPDATE`,
		`l.token = p_token AND (octet_length(l.owner) = 24 OR MUTATED) FOR UPDATE`},
}
