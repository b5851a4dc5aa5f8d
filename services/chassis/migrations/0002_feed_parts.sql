-- The feed's facts in parts of five million positions each. A part that is too old is dropped whole: no row is deleted, nothing is left for
-- the vacuum, and readers of the newest facts never share an index with the oldest. Parts are made ahead of the sequencer and dropped by two
-- functions that act with their owner's rights: the application role can make and drop no table.
--
-- Positions are the key, and dense, so that parts by position keep it unique. Of the other tables that only grow none gains by parts:
-- request_record is unique by what its caller chose, for good where money is concerned, which no part by time can promise, and elsewhere is
-- emptied by age from an index; audit_entry is never dropped and only ever written at its end.
--
-- Lock order: fact_part, then feed_head, then fact, the last two as the sequencer's.
ALTER TABLE feed_head ADD COLUMN dropped_position bigint NOT NULL DEFAULT 0; -- facts up to it are not kept any more

ALTER TABLE fact RENAME TO fact_1;
ALTER TABLE fact_1 RENAME CONSTRAINT fact_pkey TO fact_1_pkey;

CREATE TABLE fact (
    position bigint CONSTRAINT fact_pkey PRIMARY KEY, -- place in the feed: dense
    fact_id uuid NOT NULL,
    programme_id uuid NOT NULL,
    subject_id uuid NOT NULL,
    type_name text NOT NULL,           -- full name of the fact's message
    payload bytea NOT NULL,            -- the fact, encoded
    traceparent text NOT NULL,         -- context of the call that caused it
    record_time timestamptz NOT NULL
) PARTITION BY RANGE (position);

-- The parts that there are: the table of each is called after its first position.
CREATE TABLE fact_part (
    first_position bigint CONSTRAINT fact_part_pkey PRIMARY KEY,
    last_position bigint NOT NULL,
    CONSTRAINT fact_part_order CHECK (first_position <= last_position)
);

-- Makes parts until five million positions or more are ahead of the head; gives how many it made.
CREATE FUNCTION extend_feed() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    size CONSTANT bigint := 5000000;
    made integer := 0;
    head bigint;
    last bigint;
BEGIN
    SELECT position INTO head FROM feed_head;
    IF (SELECT max(last_position) FROM fact_part) >= head + size THEN
        RETURN made;
    END IF;
    -- Of several replicas one makes them, the others find them made.
    LOCK TABLE fact_part IN SHARE ROW EXCLUSIVE MODE;
    SELECT max(last_position) INTO last FROM fact_part;
    WHILE last < head + size LOOP
        EXECUTE format('CREATE TABLE fact_%s (LIKE fact INCLUDING STORAGE)', last + 1);
        -- To attach it locks neither readers nor the sequencer out.
        EXECUTE format('ALTER TABLE fact ATTACH PARTITION fact_%s FOR VALUES FROM (%s) TO (%s)', last + 1, last + 1, last + size + 1);
        INSERT INTO fact_part VALUES (last + 1, last + size);
        last := last + size;
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;

-- Drops the parts whose facts are all older than so many days, 30 or more; gives how many it dropped.
-- It gives up rather than wait for whoever reads the feed at length: the sequencer and all readers would wait behind it.
CREATE FUNCTION shorten_feed(days integer) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
SET lock_timeout = '200ms' AS $$
DECLARE
    part fact_part;
    dropped integer := 0;
    head bigint;
    newest timestamptz;
BEGIN
    IF days < 30 THEN
        RAISE EXCEPTION 'facts are kept for 30 days at least' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- One replica at a time.
    LOCK TABLE fact_part IN SHARE ROW EXCLUSIVE MODE;
    FOR part IN SELECT * FROM fact_part ORDER BY first_position LOOP
        SELECT position INTO head FROM feed_head;
        SELECT record_time INTO newest FROM fact WHERE position = part.last_position;
        EXIT WHEN part.last_position >= head OR newest >= koc_now() - days * interval '1 day';
        SELECT position INTO head FROM feed_head FOR UPDATE;
        DELETE FROM fact_part WHERE first_position = part.first_position;
        EXECUTE format('ALTER TABLE fact DETACH PARTITION fact_%s', part.first_position);
        EXECUTE format('DROP TABLE fact_%s', part.first_position);
        UPDATE feed_head SET dropped_position = part.last_position;
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END $$;
REVOKE EXECUTE ON FUNCTION extend_feed(), shorten_feed(integer) FROM PUBLIC;

-- What there is becomes the first part, as it lies: it is read once to see that it fits, and not copied.
DO $$
DECLARE
    last bigint;
BEGIN
    SELECT (position / 5000000 + 1) * 5000000 INTO last FROM feed_head;
    EXECUTE format('ALTER TABLE fact ATTACH PARTITION fact_1 FOR VALUES FROM (1) TO (%s)', last + 1);
    INSERT INTO fact_part VALUES (1, last);
    PERFORM extend_feed();
END $$;
