-- What is written with each member, under the member's lock and never for one that is not there, needs no look at the member for each row:
-- that was a tenth of what it costs to take one in. Members are never deleted.
ALTER TABLE member_search DROP CONSTRAINT member_search_member;
ALTER TABLE member_change DROP CONSTRAINT member_change_member;
