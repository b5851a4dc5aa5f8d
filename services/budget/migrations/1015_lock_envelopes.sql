-- What moves money begins with: it locks envelopes by id, those that are named and those of reservations that are, and then, by a
-- statement whose snapshot is newer than the locks, reads them, what their plans say, and the time.
CREATE FUNCTION lock_envelopes(envelope_ids uuid[], reservation_ids uuid[]) RETURNS TABLE (
    envelope_id uuid, programme_id uuid, plan_id uuid, resource_class text, has_children boolean, allocated bigint, reserved bigint,
    committed bigint, spent bigint, overrun_limit bigint, sequence bigint, plan_state text, period_start_time timestamptz,
    period_end_time timestamptz, read_time timestamptz
) LANGUAGE plpgsql AS $$
DECLARE
    ids uuid[] := envelope_ids || ARRAY(SELECT r.envelope_id FROM reservation AS r WHERE r.reservation_id = ANY (reservation_ids));
BEGIN
    PERFORM FROM envelope AS e WHERE e.envelope_id = ANY (ids) ORDER BY e.envelope_id FOR NO KEY UPDATE;
    RETURN QUERY
    SELECT e.envelope_id, e.programme_id, e.plan_id, e.resource_class, e.has_children, e.allocated, e.reserved, e.committed, e.spent,
           e.overrun_limit, e.sequence, p.state, p.period_start_time, p.period_end_time, koc_now()
    FROM envelope AS e
    JOIN plan AS p ON p.plan_id = e.plan_id
    WHERE e.envelope_id = ANY (ids);
END $$;
