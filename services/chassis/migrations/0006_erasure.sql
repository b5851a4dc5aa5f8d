-- Takes the words about things out of the trail when the person is erased whom they concern: the reasons of what was done to them, and the
-- answers that were stored for retries, which may repeat them. Who did what and when stays, and so does that a request was answered: a
-- retry is refused. It acts with its owner's rights, since the application role cannot change the trail otherwise; it only takes away.
-- Gives how many rows it changed.
CREATE FUNCTION erase_trail(of_programme uuid, of_subjects uuid[]) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
DECLARE
    answers bigint;
    reasons bigint;
BEGIN
    UPDATE request_record AS r
    SET answer = NULL,
        refusal = '{"code": 9, "reason": "MEMBER_ERASED", "message": "the member was erased, and the answer with it", "metadata": []}'
    FROM audit_entry AS e
    WHERE e.programme_id = of_programme AND e.subject_id = ANY (of_subjects) AND r.programme_id = e.programme_id AND r.method = e.method
      AND r.request_id = e.request_id AND r.answer IS NOT NULL;
    GET DIAGNOSTICS answers = ROW_COUNT;
    UPDATE audit_entry AS e
    SET reason = NULL
    WHERE e.programme_id = of_programme AND e.subject_id = ANY (of_subjects) AND e.reason IS NOT NULL;
    GET DIAGNOSTICS reasons = ROW_COUNT;
    RETURN answers + reasons;
END $$;
REVOKE EXECUTE ON FUNCTION erase_trail(uuid, uuid[]) FROM PUBLIC;
