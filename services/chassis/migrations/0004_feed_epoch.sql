-- Which history the positions of the feed are of. Another one, in a database that was made anew, has another id, so that a reader from
-- outside notices that its position means nothing here. Who restores a backup need not change it: a position names the fact that it
-- follows, which is another one where history went on differently.
ALTER TABLE feed_head ADD COLUMN epoch uuid NOT NULL DEFAULT gen_random_uuid();
