-- A ledger as large as is wanted, made past the service for tests and benches of what reads a whole one: an active plan, its envelopes, and
-- in each of them blocks of 1,000 reservations that are held, then owed in part, then given back for the rest, chained as the service would.
-- 3,000 entries for each envelope and block. To be run by a superuser; ids rise as real ones do.
CREATE FUNCTION pg_temp.id(kind integer, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT ('01900000-0000-700' || kind || '-8000-' || lpad(to_hex(n), 12, '0'))::uuid
$$;

CREATE FUNCTION pg_temp.sized(body text) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT int8send(length(body)) || convert_to(body, 'UTF8')
$$;

CREATE FUNCTION pg_temp.grow_ledger(programme uuid, envelopes integer, blocks integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    plan uuid := pg_temp.id(0, 0);
    began timestamptz := date_trunc('second', koc_now()) - interval '1 day';
    funds bigint := 100000::bigint * blocks;
    linked bytea := decode(repeat('00', 32), 'hex');
    entry record;
    place bigint := 0;
BEGIN
    INSERT INTO programme VALUES (programme, 'CNY', began) ON CONFLICT DO NOTHING;
    INSERT INTO plan (plan_id, programme_id, display_name, period_start_time, period_end_time, state, required_approvals,
                      approval_validity_us, min_reserve_percent, max_reserve_percent, submitted_by, approved_by, approve_times, version,
                      create_time)
    VALUES (plan, programme, 'large', began, began + interval '30 days', 'ACTIVE', 1, 86400000000, 0, 100, 'planner', '{controller}',
            ARRAY[began], 1, began);
    INSERT INTO envelope (envelope_id, plan_id, programme_id, ordinal, resource_class, display_name, planned, allocated, committed, sequence)
    SELECT pg_temp.id(1, e), plan, programme, e, 'INCENTIVE', 'part ' || e, funds, funds, 60000::bigint * blocks, 1 + 3000 * blocks
    FROM generate_series(0, envelopes - 1) AS e;

    -- The n-th of all reservations; a member has ten.
    INSERT INTO reservation
    SELECT pg_temp.id(2, n), programme, pg_temp.id(1, n / 1000 % envelopes), pg_temp.id(4, n / 10), 'assignment/' || n, 100, 0, 60, 0, 40, 0,
           began + interval '20 days', began
    FROM generate_series(0, 1000::bigint * envelopes * blocks - 1) AS n;
    INSERT INTO member_limit
    SELECT programme, pg_temp.id(4, n), began, began + interval '30 days', 1000, 600, NULL, 'tier', 'planner', began
    FROM generate_series(0, 100::bigint * envelopes * blocks - 1) AS n;

    INSERT INTO ledger_entry
    SELECT pg_temp.id(3, e), programme, pg_temp.id(1, e), 1, 'ALLOCATE', 'FUNDING', 'AVAILABLE', funds, NULL, funds, pg_temp.id(5, e), 'controller', began
    FROM generate_series(0, envelopes - 1) AS e;
    INSERT INTO ledger_entry
    SELECT pg_temp.id(3, envelopes + (3 * b + step) * 1000 * envelopes + 1000 * e + i), programme, pg_temp.id(1, e),
           2 + 1000 * (3 * b + step) + i, kind, credit, debit, amount, pg_temp.id(2, 1000 * (b * envelopes + e) + i),
           funds - 60000 * b - first - (i + 1) * each, pg_temp.id(5, envelopes + (3 * b + step) * 1000 * envelopes + 1000 * e + i),
           'task-service', began + interval '1 microsecond' * (1 + 1000 * (3 * b + step) + i)
    FROM generate_series(0::bigint, blocks - 1) AS b,
         (VALUES (0, 'RESERVE', 'AVAILABLE', 'RESERVED', 100, 0, 100), (1, 'COMMIT', 'RESERVED', 'COMMITTED', 60, 100000, 0),
                 (2, 'RELEASE', 'RESERVED', 'AVAILABLE', 40, 100000, -40)) AS s (step, kind, credit, debit, amount, first, each),
         generate_series(0::bigint, envelopes - 1) AS e,
         generate_series(0::bigint, 999) AS i;

    FOR entry IN SELECT * FROM ledger_entry WHERE entry_id >= pg_temp.id(3, 0) AND entry_id < pg_temp.id(4, 0) ORDER BY entry_id LOOP
        place := place + 1;
        linked := sha256(linked || '\x01'::bytea || uuid_send(entry.entry_id) || uuid_send(entry.programme_id)
            || uuid_send(entry.envelope_id) || int8send(entry.envelope_sequence) || pg_temp.sized(entry.kind)
            || pg_temp.sized(entry.credit_account) || pg_temp.sized(entry.debit_account) || int8send(entry.amount)
            || uuid_send(coalesce(entry.reservation_id, '00000000-0000-0000-0000-000000000000')) || int8send(entry.available_after)
            || uuid_send(entry.operation_id) || pg_temp.sized(entry.actor)
            || int8send((extract(epoch FROM entry.entry_time) * 1000000)::bigint));
        INSERT INTO ledger_chain VALUES (programme, place, entry.entry_id, linked);
    END LOOP;
END $$;
