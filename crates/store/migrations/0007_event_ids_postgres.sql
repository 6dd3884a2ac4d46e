-- PostgreSQL only. Ids of events no longer come from a counter's row, which made the writers of events wait for each
-- other. An id is tenths of a second since 1970 << 18 | a number from a sequence, so it is greater than each id that a
-- counter gave. On SQLite, which has one writer at a time, the counter goes on giving ids of this size.
--
-- Ids that are taken at the same time commit in any order. So that a reader who goes on after the last id that it saw misses
-- nothing, a writer holds a shared advisory lock (19799 << 36 | tenths of a second) until its transaction ends. None of its
-- ids is smaller than the lock says, and each is greater than all ids that were committed when it got the lock. A reader
-- looks at the newest committed id and then at the locks, and leaves out what is newer than that id or not older than a lock.
CREATE SEQUENCE IF NOT EXISTS event_low MINVALUE 0 MAXVALUE 131071 CYCLE;

CREATE OR REPLACE FUNCTION modelway_event_tick(now_tick BIGINT) RETURNS BIGINT LANGUAGE plpgsql AS $$
DECLARE
    tick BIGINT;
BEGIN
    SELECT greatest(now_tick, coalesce(max(event.id), 0) >> 18) INTO tick FROM event;
    PERFORM pg_advisory_xact_lock_shared((CAST(19799 AS BIGINT) << 36) | tick);
    -- Once more: others may have committed since the first look.
    RETURN (SELECT greatest(tick, coalesce(max(event.id), 0) >> 18) FROM event);
END $$;

CREATE OR REPLACE FUNCTION modelway_event_ids(now_tick BIGINT, how_many BIGINT) RETURNS SETOF BIGINT LANGUAGE plpgsql AS $$
DECLARE
    tick BIGINT := modelway_event_tick(now_tick);
    newest BIGINT;
    low BIGINT;
BEGIN
    SELECT coalesce(max(event.id), 0) INTO newest FROM event;
    FOR n IN 1..how_many LOOP
        low := nextval('event_low');
        -- The sequence began anew, or the clock went back.
        IF (tick << 18) | low <= newest THEN
            tick := (newest >> 18) + 1;
        END IF;
        newest := (tick << 18) | low;
        RETURN NEXT newest;
    END LOOP;
END $$;

-- For processes of earlier versions, which take ids from the counter: theirs keep the same rule. The counter's row makes them
-- wait for each other; the upper half of the low numbers is theirs.
CREATE OR REPLACE FUNCTION modelway_event_counter() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    tick BIGINT := modelway_event_tick(CAST(floor(extract(epoch FROM clock_timestamp()) * 10) AS BIGINT));
BEGIN
    NEW.value := greatest(NEW.value, (tick << 18) + 131072 + NEW.value - OLD.value - 1);
    RETURN NEW;
END $$;

DROP TRIGGER IF EXISTS event_counter ON counter;
CREATE TRIGGER event_counter BEFORE UPDATE ON counter FOR EACH ROW
    WHEN (NEW.name = 'event' AND NEW.value > OLD.value) EXECUTE FUNCTION modelway_event_counter();
