-- Finding members by their names. No extension is needed: names are cut into grams by functions of ours, and a GIN index holds those.

-- A name as it is compared: compatibility forms made plain (full width, ligatures), in small letters, without blanks and punctuation.
CREATE FUNCTION search_text(name text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN regexp_replace(lower(normalize(name, NFKC)), '[\s!-/:-@[-`{-~]+', '', 'g');

-- What of a member is searched: its name and its handles, as they are compared, each once.
CREATE FUNCTION search_names(display_name text, channels jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ARRAY(
        SELECT DISTINCT n.name
        FROM (
            SELECT search_text(display_name) AS name
            UNION ALL
            SELECT search_text(c.channel ->> 'handle') FROM jsonb_array_elements(channels) AS c (channel)
        ) AS n
        WHERE n.name <> ''
        ORDER BY n.name
    );

-- Grams of names: two characters, and besides one that is not ASCII (a Chinese name has few) or three that are (two are in too many
-- names). Before each stands the end of the programme's id, so that programmes do not share entries.
CREATE FUNCTION search_grams(programme_id uuid, names text[]) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ARRAY(
        SELECT DISTINCT right(programme_id::text, 8) || substr(n.name, i.start, l.length)
        FROM unnest(names) AS n (name), generate_series(1, length(n.name)) AS i (start), generate_series(1, 3) AS l (length)
        WHERE i.start + l.length - 1 <= length(n.name)
          AND CASE l.length
              WHEN 1 THEN octet_length(substr(n.name, i.start, 1)) > 1
              WHEN 3 THEN octet_length(substr(n.name, i.start, 3)) = 3
              ELSE true
              END
    );

-- Apart from the members, whose rows change often, and their names seldom.
CREATE TABLE member_search (
    programme_id uuid NOT NULL,
    member_id uuid NOT NULL,
    names text[] NOT NULL,             -- by search_names; an erasure deletes the row
    CONSTRAINT member_search_pkey PRIMARY KEY (programme_id, member_id),
    CONSTRAINT member_search_member FOREIGN KEY (programme_id, member_id) REFERENCES member
);
INSERT INTO member_search (programme_id, member_id, names)
SELECT programme_id, member_id, search_names(display_name, channels)
FROM member;
CREATE INDEX member_search_grams ON member_search USING gin (search_grams(programme_id, names));
