-- The same work in SQL alone: one function for one reserve, as simple as it can be and right, and one for a set of them.
CREATE TABLE account (
    id uuid PRIMARY KEY,
    allocated bigint NOT NULL,
    held bigint NOT NULL DEFAULT 0,
    sequence bigint NOT NULL DEFAULT 0,
    CHECK (held <= allocated)
) WITH (fillfactor = 50);

CREATE TABLE asked (
    key uuid PRIMARY KEY,
    hash bytea NOT NULL,
    account uuid NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0),
    held boolean NOT NULL,
    expires_at timestamptz NOT NULL,
    at timestamptz NOT NULL
);

CREATE TABLE posting (
    key uuid NOT NULL,
    account uuid NOT NULL,
    bucket "char" NOT NULL,
    amount bigint NOT NULL,
    available_after bigint NOT NULL,
    sequence bigint NOT NULL,
    at timestamptz NOT NULL
);
CREATE INDEX posting_of_account ON posting (account, sequence);

-- true: held; false: there is not enough. A key that is known gives its first answer.
CREATE FUNCTION hold(k uuid, h bytea, a uuid, m bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    moment timestamptz := clock_timestamp();
    first record;
    left_over bigint;
    nr bigint;
BEGIN
    INSERT INTO asked VALUES (k, h, a, m, true, moment + interval '15 minutes', moment) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        SELECT hash, held INTO first FROM asked WHERE key = k;
        IF first.hash <> h THEN
            RAISE EXCEPTION 'the key was used for something else';
        END IF;
        RETURN first.held;
    END IF;
    UPDATE account SET held = held + m, sequence = sequence + 1
    WHERE id = a AND held + m <= allocated
    RETURNING allocated - held, sequence INTO left_over, nr;
    IF NOT FOUND THEN
        UPDATE asked SET held = false WHERE key = k;
        RETURN false;
    END IF;
    INSERT INTO posting VALUES (k, a, '-', m, left_over, nr, moment), (k, a, '+', m, left_over, nr, moment);
    RETURN true;
END $$;

-- Holds a set on one account, as far as the money goes, in order; says how many.
CREATE FUNCTION hold_all(ks uuid[], hs bytea[], a uuid, ms bigint[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    moment timestamptz;
    found_account account;
    held_now bigint;
    sum_now bigint;
BEGIN
    SELECT * INTO found_account FROM account WHERE id = a FOR NO KEY UPDATE;
    moment := clock_timestamp();
    WITH new AS (
        SELECT u.*, sum(u.m) OVER (ORDER BY u.nr) <= found_account.allocated - found_account.held AS fits
        FROM UNNEST(ks, hs, ms) WITH ORDINALITY AS u (k, h, m, nr)
        WHERE NOT EXISTS (SELECT FROM asked WHERE key = u.k)
    ), kept AS (
        INSERT INTO asked SELECT k, h, a, m, fits, moment + interval '15 minutes', moment FROM new
    ), fitting AS (
        SELECT k, m, found_account.allocated - found_account.held - sum(m) OVER (ORDER BY nr) AS left_over,
               found_account.sequence + row_number() OVER (ORDER BY nr) AS nr
        FROM new WHERE fits
    ), posted AS (
        INSERT INTO posting SELECT k, a, bucket, m, left_over, nr, moment FROM fitting, (VALUES ('-'::"char"), ('+')) AS b (bucket)
    )
    SELECT count(*), coalesce(sum(m), 0) INTO held_now, sum_now FROM fitting;
    UPDATE account SET held = held + sum_now, sequence = sequence + held_now WHERE id = a;
    RETURN held_now;
END $$;
