-- What the backend "postgres" of Lockstep keeps in a database. It may be run again, also on an
-- older version, and while clients are at work. After a release a function that changes gets a
-- new name, by version in schema.go: clients of the older version go on calling the old one.
BEGIN ISOLATION LEVEL READ COMMITTED;

-- One at a time: CREATE … IF NOT EXISTS fails when two do it at once.
SELECT pg_advisory_xact_lock(@mutex@);

-- To create a schema takes a right on the database, even if the schema exists.
DO $lockstep$
BEGIN
	IF to_regnamespace(@schema_text@) IS NULL THEN
		CREATE SCHEMA @schema@;
	END IF;
END
$lockstep$;

-- A row for each key that is held, or was a short while ago: the token must outlive the hold.
-- Nothing but the key is indexed, and there is room in every page, so that each change of a
-- row stays in its page and touches no index (HOT).
CREATE @unlogged@TABLE IF NOT EXISTS @locks@ (
	token   bigint      NOT NULL, -- of the present holder, or the last one
	until   timestamptz NOT NULL, -- when the hold ends, by this server's clock; -infinity: it was released
	late    timestamptz,          -- until then, attempts that were taken back may come late: see @undone_name@
	rev     smallint    NOT NULL, -- counts the changes that the functions below make; what does not count up is somebody else's
	session boolean     NOT NULL, -- renewed by its client, rather than a lease
	wanted  boolean     NOT NULL DEFAULT false, -- somebody waits, and is to be notified
	owner   bytea       NOT NULL,
	key     bytea       PRIMARY KEY,
	identity bytea,               -- what the owner says of itself to people,
	note     bytea,               -- and of the hold
	said_by  bytea                -- the owner who said that: version 1 changes owners and leaves it
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

-- The owners of attempts that were taken back, and of holds that were broken. What comes late of
-- them is refused.
CREATE @unlogged@TABLE IF NOT EXISTS @undone@ (
	owner  bytea       PRIMARY KEY,
	until  timestamptz NOT NULL,
	broken boolean     NOT NULL DEFAULT false
);

-- What version 1 has not. To alter a table waits for all who use it, so only where it is needed.
DO $lockstep$
BEGIN
	IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = @locks_text@::regclass AND attname = 'said_by' AND NOT attisdropped) THEN
		ALTER TABLE @locks@ ADD COLUMN identity bytea, ADD COLUMN note bytea, ADD COLUMN said_by bytea;
	END IF;
	IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = @undone_text@::regclass AND attname = 'broken' AND NOT attisdropped) THEN
		ALTER TABLE @undone@ ADD COLUMN broken boolean NOT NULL DEFAULT false;
	END IF;
END
$lockstep$;

-- One row: when the last sweep was.
CREATE TABLE IF NOT EXISTS @swept@ (
	at timestamptz NOT NULL
);
INSERT INTO @swept@ (at) SELECT '-infinity' WHERE NOT EXISTS (SELECT FROM @swept@);

-- A token: microseconds of this server's clock, but more than the last one.
CREATE OR REPLACE FUNCTION @next@(last bigint) RETURNS bigint LANGUAGE sql VOLATILE AS $lockstep$
	SELECT greatest(last + 1, floor(date_part('epoch', clock_timestamp()) * 1000000)::bigint)
$lockstep$;

CREATE OR REPLACE FUNCTION @micros@(n bigint) RETURNS interval LANGUAGE sql IMMUTABLE AS $lockstep$
	SELECT n * interval '1 microsecond'
$lockstep$;

-- All durations are microseconds.
--
-- One attempt. Above 0: granted, with that token. Below: held by another owner, for one microsecond
-- less than that. 0: held, and nobody knows for how long.
--
-- An attempt that is carried out later than patience after it has arrived, because somebody
-- had locked the row, has no effect: its client has gone.
CREATE OR REPLACE FUNCTION @acquire@(
	p_key bytea, p_owner bytea, p_life bigint, p_session boolean, p_wanted boolean, p_patience bigint,
	p_identity bytea, p_note bytea
) RETURNS bigint LANGUAGE plpgsql AS $lockstep$
DECLARE
	r record;
	v_token bigint;
	v_late timestamptz;
BEGIN
	LOOP
		-- A refusal writes nothing, and waits for nobody.
		SELECT l.owner, l.until, l.wanted INTO r FROM @locks@ l WHERE l.key = p_key;
		IF NOT FOUND THEN
			-- A row that nobody holds, which the UPDATE below then takes. To insert one that is held
			-- would be wrong: the INSERT may have to wait for somebody who deletes an earlier row,
			-- and by then its token, which it has made before, is less than that row's.
			INSERT INTO @locks@ (key, owner, token, session, until, rev)
				VALUES (p_key, '', 0, false, '-infinity', 0) ON CONFLICT (key) DO NOTHING;
			CONTINUE;
		ELSIF r.owner <> p_owner AND r.until > clock_timestamp() THEN
			IF p_wanted AND NOT r.wanted THEN
				UPDATE @locks@ l SET wanted = true, rev = (l.rev + 1) & 32767
					WHERE l.key = p_key AND l.owner <> p_owner AND l.until > clock_timestamp()
					RETURNING l.until INTO r.until;
				IF NOT FOUND THEN
					CONTINUE; -- it has become free
				END IF;
			END IF;
			IF NOT isfinite(r.until) THEN
				RETURN 0;
			END IF;
			RETURN -1 - greatest(0, ceil(date_part('epoch', r.until - clock_timestamp()) * 1000000))::bigint;
		ELSE
			-- What others decided meanwhile is looked at again by the WHERE, once the row is ours.
			-- Where the one who gets it had waited, others may wait still: each of them would have
			-- to write that again. Nobody listening, once, costs less than that.
			UPDATE @locks@ l SET
					token = CASE WHEN l.owner = p_owner AND l.until > clock_timestamp() THEN l.token ELSE @next@(l.token) END,
					wanted = l.wanted AND (l.owner = p_owner OR p_wanted),
					owner = p_owner, identity = p_identity, note = p_note, said_by = p_owner, session = p_session, until = clock_timestamp() + @micros@(p_life), rev = (l.rev + 1) & 32767
				WHERE l.key = p_key AND (l.owner = p_owner OR l.until <= clock_timestamp())
				RETURNING l.token, l.late INTO v_token, v_late;
			IF NOT FOUND THEN
				CONTINUE;
			END IF;
			IF v_late > clock_timestamp() AND EXISTS (SELECT FROM @undone@ u WHERE u.owner = p_owner) THEN
				RAISE EXCEPTION 'the attempt was taken back before it arrived' USING ERRCODE = 'LS001';
			END IF;
		END IF;
		IF clock_timestamp() - statement_timestamp() > @micros@(p_patience) THEN
			RAISE EXCEPTION 'the attempt waited for a row lock for longer than its client' USING ERRCODE = 'LS002';
		END IF;
		IF v_token > 9007199254740992 THEN
			RAISE EXCEPTION 'the token % is greater than 2^53', v_token USING ERRCODE = 'LS003';
		END IF;
		RETURN v_token;
	END LOOP;
END
$lockstep$;

-- One attempt at several keys: all, or none. The tokens; or, where the first is not above 0, what
-- @acquire@ says of a key that another owner holds, and which it is, from 1.
--
-- The keys are in order, and so are the locks on their rows: two calls never wait for each other.
CREATE OR REPLACE FUNCTION @acquire_all@(
	p_keys bytea[], p_owners bytea[], p_life bigint, p_session boolean, p_patience bigint,
	p_identity bytea, p_notes bytea[]
) RETURNS bigint[] LANGUAGE plpgsql AS $lockstep$
DECLARE
	r record;
	v_token bigint;
	v_tokens bigint[] := '{}';
BEGIN
	-- A refusal writes nothing, and waits for nobody. A loop, because the plan of a join depends on
	-- how large the table was when it was made.
	FOR i IN 1 .. cardinality(p_keys) LOOP
		SELECT l.owner, l.until INTO r FROM @locks@ l WHERE l.key = p_keys[i];
		IF FOUND AND r.owner <> p_owners[i] AND r.until > clock_timestamp() THEN
			RETURN ARRAY[CASE WHEN isfinite(r.until) THEN
				-1 - greatest(0, ceil(date_part('epoch', r.until - clock_timestamp()) * 1000000))::bigint ELSE 0 END, i];
		END IF;
	END LOOP;
	BEGIN
		FOR i IN 1 .. cardinality(p_keys) LOOP
			v_token := @acquire@(p_keys[i], p_owners[i], p_life, p_session, false, p_patience, p_identity, p_notes[i]);
			IF v_token <= 0 THEN
				v_tokens := ARRAY[v_token, i];
				RAISE EXCEPTION 'a key was taken meanwhile' USING ERRCODE = 'LS004';
			END IF;
			v_tokens := v_tokens || v_token;
		END LOOP;
	EXCEPTION WHEN SQLSTATE 'LS004' THEN
		NULL; -- what came before it is rolled back
	END;
	RETURN v_tokens;
END
$lockstep$;

-- Makes a lease end p_life from now, and says whether it was held.
CREATE OR REPLACE FUNCTION @extend@(p_key bytea, p_owner bytea, p_token bigint, p_life bigint, p_patience bigint)
RETURNS boolean LANGUAGE plpgsql AS $lockstep$
DECLARE
	r record;
	n timestamptz;
BEGIN
	-- The clock is read when the row is ours: to get it may have taken longer than the lease lasted.
	SELECT l.until, l.wanted INTO r FROM @locks@ l
		WHERE l.key = p_key AND l.owner = p_owner AND l.token = p_token FOR UPDATE;
	n := clock_timestamp();
	IF NOT FOUND OR r.until <= n THEN
		RETURN false;
	END IF;
	IF n - statement_timestamp() > @micros@(p_patience) THEN
		RAISE EXCEPTION 'the request waited for a row lock for longer than its client' USING ERRCODE = 'LS002';
	END IF;
	UPDATE @locks@ l SET until = n + @micros@(p_life), rev = (l.rev + 1) & 32767 WHERE l.key = p_key;
	IF r.wanted AND n + @micros@(p_life) < r.until THEN
		PERFORM pg_notify(@channel@, 'w' || encode(sha256(p_key), 'hex')); -- who waits has set a timer for the old end
	END IF;
	RETURN true;
END
$lockstep$;

-- Frees a key, and says whether it was held. p_token = 0: the owner alone decides.
CREATE OR REPLACE FUNCTION @release@(p_key bytea, p_owner bytea, p_token bigint)
RETURNS boolean LANGUAGE plpgsql AS $lockstep$
DECLARE
	v_wanted boolean;
BEGIN
	UPDATE @locks@ l SET until = '-infinity', rev = (l.rev + 1) & 32767
		WHERE l.key = p_key AND l.owner = p_owner AND (p_token = 0 OR l.token = p_token) AND l.until > clock_timestamp()
		RETURNING l.wanted INTO v_wanted;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	IF v_wanted THEN
		PERFORM pg_notify(@channel@, 'w' || encode(sha256(p_key), 'hex'));
	END IF;
	RETURN true;
END
$lockstep$;

-- @release@ of a hold whose attempt may come late, or a second time: for p_keep from now it
-- is refused.
CREATE OR REPLACE FUNCTION @takeback@(p_key bytea, p_owner bytea, p_keep bigint)
RETURNS boolean LANGUAGE plpgsql AS $lockstep$
DECLARE
	v_until timestamptz := clock_timestamp() + @micros@(p_keep);
	v_held boolean := true;
	v_wanted boolean;
BEGIN
	INSERT INTO @undone@ AS u (owner, until) VALUES (p_owner, v_until)
		ON CONFLICT (owner) DO UPDATE SET until = v_until;
	UPDATE @locks@ l SET until = '-infinity', late = v_until, rev = (l.rev + 1) & 32767
		WHERE l.key = p_key AND l.owner = p_owner AND l.until > clock_timestamp()
		RETURNING l.wanted INTO v_wanted;
	IF NOT FOUND THEN
		v_held := false;
		-- The attempt may be inserting its row at this moment, unseen by the UPDATE.
		INSERT INTO @locks@ AS l (key, owner, token, session, until, late, rev)
			VALUES (p_key, p_owner, 0, false, '-infinity', v_until, 0)
			ON CONFLICT (key) DO UPDATE SET
				until = CASE WHEN l.owner = p_owner THEN '-infinity' ELSE l.until END,
				late = v_until, rev = (l.rev + 1) & 32767
			RETURNING l.wanted AND l.owner = p_owner INTO v_wanted;
	END IF;
	IF v_wanted THEN
		PERFORM pg_notify(@channel@, 'w' || encode(sha256(p_key), 'hex'));
	END IF;
	RETURN v_held;
END
$lockstep$;

-- Frees a key if the hold with that token has it, and returns its owner, or NULL. rev stays as it is: the
-- change is announced like one by hand, to who holds the key and to who waits for it.
CREATE OR REPLACE FUNCTION @break@(p_key bytea, p_token bigint, p_keep bigint)
RETURNS bytea LANGUAGE plpgsql AS $lockstep$
DECLARE
	r record;
	v_until timestamptz;
BEGIN
	-- What somebody else wrote over a hold has its token still, and no owner, who has 24 bytes.
	SELECT l.owner, l.until, l.late INTO r FROM @locks@ l
		WHERE l.key = p_key AND l.token = p_token AND octet_length(l.owner) = 24 FOR UPDATE;
	IF NOT FOUND OR r.until <= clock_timestamp() THEN
		RETURN NULL;
	END IF;
	-- Its holder asks when it hears of the loss: at its deadline at the latest.
	v_until := least(r.until, clock_timestamp() + interval '1 day') + @micros@(p_keep);
	INSERT INTO @undone@ AS u (owner, until, broken) VALUES (r.owner, v_until, true)
		ON CONFLICT (owner) DO UPDATE SET until = greatest(u.until, v_until), broken = true;
	UPDATE @locks@ l SET until = '-infinity', late = greatest(l.late, v_until) WHERE l.key = p_key;
	RETURN r.owner;
END
$lockstep$;

-- It is for those who are told that they may.
REVOKE EXECUTE ON FUNCTION @break@(bytea, bigint, bigint) FROM PUBLIC;

-- Renews sessions. For each: 1 it is renewed, 0 it is gone, 2 somebody has locked its row.
CREATE OR REPLACE FUNCTION @renew@(p_keys bytea[], p_owners bytea[], p_life bigint)
RETURNS smallint[] LANGUAGE plpgsql
-- A plan that was made while the table was small must not read all of it when it has grown.
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $lockstep$
DECLARE
	n timestamptz := clock_timestamp();
	outcomes smallint[];
BEGIN
	WITH mine AS MATERIALIZED (
		SELECT u.key, u.owner, u.i FROM unnest(p_keys, p_owners) WITH ORDINALITY AS u(key, owner, i)
	), mark AS MATERIALIZED (
		SELECT l.key, m.i FROM mine m JOIN @locks@ l ON l.key = m.key
		WHERE l.owner = m.owner AND l.session AND l.until > n
		FOR NO KEY UPDATE OF l SKIP LOCKED
	), done AS (
		UPDATE @locks@ l SET until = clock_timestamp() + @micros@(p_life), rev = (l.rev + 1) & 32767
		FROM mark WHERE l.key = mark.key
		RETURNING mark.i
	)
	SELECT array_agg((CASE
			WHEN d.i IS NOT NULL THEN 1
			WHEN EXISTS (SELECT FROM @locks@ l WHERE l.key = m.key AND l.owner = m.owner AND l.until > n) THEN 2
			ELSE 0 END)::smallint ORDER BY m.i)
		INTO outcomes FROM mine m LEFT JOIN done d ON d.i = m.i;
	RETURN outcomes;
END
$lockstep$;

-- Says of each hold whether it stands.
CREATE OR REPLACE FUNCTION @check@(p_keys bytea[], p_owners bytea[]) RETURNS boolean[] LANGUAGE sql VOLATILE AS $lockstep$
	SELECT array_agg(EXISTS (
			SELECT FROM @locks@ l WHERE l.key = u.key AND l.owner = u.owner AND l.until > clock_timestamp()) ORDER BY u.i)
		FROM unnest(p_keys, p_owners) WITH ORDINALITY AS u(key, owner, i)
$lockstep$;

-- Says of each key whether it is worth an attempt: it is free, or, with p_want, whoever frees it would
-- not notify, because its row was locked by somebody and could not be marked. This waits for nobody:
-- the connection that asks also renews sessions.
CREATE OR REPLACE FUNCTION @free@(p_keys bytea[], p_want boolean) RETURNS boolean[] LANGUAGE plpgsql AS $lockstep$
BEGIN
	IF p_want THEN
		UPDATE @locks@ l SET wanted = true, rev = (l.rev + 1) & 32767
			WHERE l.key = ANY (ARRAY(
				SELECT h.key FROM @locks@ h WHERE h.key = ANY (p_keys) AND NOT h.wanted AND h.until > clock_timestamp()
				FOR NO KEY UPDATE SKIP LOCKED));
	END IF;
	RETURN (SELECT array_agg(NOT EXISTS (
			SELECT FROM @locks@ l WHERE l.key = u.key AND l.until > clock_timestamp() AND (l.wanted OR NOT p_want)) ORDER BY u.i)
		FROM unnest(p_keys) WITH ORDINALITY AS u(key, i));
END
$lockstep$;

-- Removes at most p_most rows that nobody holds and whose token is older than p_keep, unless
-- another client does or did so within p_every. Says how many, or NULL if it was not its turn.
CREATE OR REPLACE FUNCTION @sweep@(p_keep bigint, p_every bigint, p_most integer)
RETURNS integer LANGUAGE plpgsql AS $lockstep$
DECLARE
	n integer;
BEGIN
	PERFORM FROM @swept@ WHERE at <= clock_timestamp() - @micros@(p_every) FOR UPDATE SKIP LOCKED;
	IF NOT FOUND AND EXISTS (SELECT FROM @swept@) THEN -- without a row, nobody's turn would come
		RETURN NULL;
	END IF;
	DELETE FROM @undone@ WHERE until < clock_timestamp();
	DELETE FROM @locks@ WHERE ctid = ANY (ARRAY(
		SELECT l.ctid FROM @locks@ l
		WHERE l.until <= clock_timestamp() AND (l.late IS NULL OR l.late < clock_timestamp())
			AND l.token < (extract(epoch FROM clock_timestamp() - @micros@(p_keep)) * 1000000)::bigint
		LIMIT p_most FOR UPDATE SKIP LOCKED));
	GET DIAGNOSTICS n = ROW_COUNT;
	IF n < p_most THEN
		UPDATE @swept@ SET at = clock_timestamp(); -- otherwise the next call goes on
	END IF;
	RETURN n;
END
$lockstep$;

-- What others change is announced: to who holds the key, and to who waits for it.
CREATE OR REPLACE FUNCTION @changed@() RETURNS trigger LANGUAGE plpgsql AS $lockstep$
BEGIN
	IF TG_OP = 'TRUNCATE' THEN
		PERFORM pg_notify(@channel@, 'a');
	ELSE
		PERFORM pg_notify(@channel@, 'c' || encode(sha256(OLD.key), 'hex'));
	END IF;
	RETURN NULL;
END
$lockstep$;

DROP TRIGGER IF EXISTS @on_update@ ON @locks@;
CREATE TRIGGER @on_update@ AFTER UPDATE ON @locks@ FOR EACH ROW
	WHEN (NEW.rev = OLD.rev) EXECUTE FUNCTION @changed@();
DROP TRIGGER IF EXISTS @on_delete@ ON @locks@;
CREATE TRIGGER @on_delete@ AFTER DELETE ON @locks@ FOR EACH ROW
	WHEN (OLD.until > clock_timestamp()) EXECUTE FUNCTION @changed@();
DROP TRIGGER IF EXISTS @on_truncate@ ON @locks@;
CREATE TRIGGER @on_truncate@ AFTER TRUNCATE ON @locks@ FOR EACH STATEMENT EXECUTE FUNCTION @changed@();

COMMENT ON TABLE @locks@ IS @comment@;

COMMIT;
