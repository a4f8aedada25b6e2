-- What the ledger says of each job, in the order of the jobs' ids.
-- returns: text: JSON array of the id and an array of [event, claim_no, process, at s, well]
SELECT json_build_array(l.job_id, json_agg(json_build_array(
           l.event, l.claim_no, l.process, date_part('epoch', l.at), l.well) ORDER BY l.at))::text
FROM /*schema.*/history_ledger l GROUP BY l.job_id ORDER BY l.job_id
