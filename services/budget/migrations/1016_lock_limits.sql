-- Keeps members from being given new limits meanwhile, in the order of their hashes, and then locks, by key, the limits that money of these
-- plans counts towards: of the members, and of those that are one person with them. What they say is to be read by a statement after it.
CREATE FUNCTION lock_limits(class integer, programme_ids uuid[], member_ids uuid[], plan_ids uuid[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    ends uuid[];
    persons uuid[];
BEGIN
    PERFORM pg_advisory_xact_lock_shared(class, m.hash)
    FROM (SELECT DISTINCT hashtext(u.id::text) AS hash FROM UNNEST(member_ids) AS u (id) ORDER BY hash) AS m;
    -- Who is one person with them stays so from here on: a merge takes the locks of all ids of both.
    ends := member_ids || ARRAY(SELECT a.leads_to FROM member_alias AS a
                                WHERE a.programme_id = ANY (programme_ids) AND a.member_id = ANY (member_ids));
    persons := ends || ARRAY(SELECT a.member_id FROM member_alias AS a
                             WHERE a.programme_id = ANY (programme_ids) AND a.leads_to = ANY (ends));
    PERFORM
    FROM member_limit AS l
    WHERE l.programme_id = ANY (programme_ids)
      AND l.member_id = ANY (persons)
      AND EXISTS (SELECT FROM plan AS p
                  WHERE p.plan_id = ANY (plan_ids) AND p.programme_id = l.programme_id
                    AND l.period_start_time <= p.period_start_time AND p.period_end_time <= l.period_end_time)
    ORDER BY l.programme_id, l.member_id, l.period_start_time
    FOR NO KEY UPDATE OF l;
END $$;
