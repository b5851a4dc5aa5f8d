-- Words about persons can be taken out of the records of draws when the person is erased, by one function and nothing else. Figures, ids,
-- and who decided what when, stay; so does the ledger, which holds no words.
CREATE FUNCTION refuse_change_but_erasure() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND current_setting('koc.erasing', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE OR REPLACE TRIGGER reserve_draw_approval_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON reserve_draw_approval
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_but_erasure();
CREATE OR REPLACE TRIGGER reserve_draw_outcome_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON reserve_draw_outcome
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_but_erasure();

-- Figures by name, [{"name": …, "value": …}], without what is a word and no figure.
CREATE FUNCTION figures_alone(figures jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (
        SELECT COALESCE(jsonb_agg(CASE WHEN f.figure ->> 'value' ~ '^[-+]?[0-9][0-9.,]*%?$' THEN f.figure
                                       ELSE jsonb_set(f.figure, '{value}', '"erased"') END ORDER BY f.nr), '[]')
        FROM jsonb_array_elements(figures) WITH ORDINALITY AS f (figure, nr)
    );

-- Takes the reasons and notes out of what was approved and reported for these draws; gives of how many rows. It acts with its owner's rights:
-- the application role changes neither table.
CREATE FUNCTION erase_draw_words(of_draws uuid[]) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
DECLARE
    reasons bigint;
    notes bigint;
BEGIN
    PERFORM set_config('koc.erasing', 'on', true);
    UPDATE reserve_draw_approval AS a
    SET reason = ''
    WHERE a.reserve_draw_id = ANY (of_draws) AND a.reason <> '';
    GET DIAGNOSTICS reasons = ROW_COUNT;
    UPDATE reserve_draw_outcome AS o
    SET note = '', figures = figures_alone(o.figures)
    WHERE o.reserve_draw_id = ANY (of_draws) AND (o.note <> '' OR o.figures <> figures_alone(o.figures));
    GET DIAGNOSTICS notes = ROW_COUNT;
    PERFORM set_config('koc.erasing', '', true);
    RETURN reasons + notes;
END $$;
REVOKE EXECUTE ON FUNCTION erase_draw_words(uuid[]) FROM PUBLIC;
