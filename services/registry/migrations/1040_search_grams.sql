-- Grams of names are worked out by the service, which writes them with the names: to have the index do it by functions of SQL was more than
-- half of what it cost to take a member in, and its small letters depended on the database's locale.

ALTER TABLE member_search ADD COLUMN grams bigint[]; -- of the names; NULL when an older version wrote these: the service completes them
-- An older version knows the old index alone: until it is gone, its searches read all names of a programme.
DROP INDEX member_search_grams;
CREATE INDEX member_search_gram ON member_search USING gin (grams);
CREATE INDEX member_search_incomplete ON member_search (programme_id, member_id) WHERE grams IS NULL;

-- It writes names alone, and the grams would be those of other names.
CREATE FUNCTION forget_grams() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.grams := NULL;
    RETURN NEW;
END $$;
CREATE TRIGGER member_search_renamed BEFORE UPDATE OF names ON member_search
    FOR EACH ROW WHEN (OLD.names <> NEW.names AND OLD.grams = NEW.grams) EXECUTE FUNCTION forget_grams();

-- Members that a version before 1005 wrote while it was rolled out have no names yet.
INSERT INTO member_search (programme_id, member_id, names)
SELECT programme_id, member_id, search_names(display_name, channels)
FROM member AS m
WHERE merged_into IS NULL
  AND NOT EXISTS (SELECT FROM member_search AS s WHERE s.programme_id = m.programme_id AND s.member_id = m.member_id);
