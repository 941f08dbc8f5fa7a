#!/usr/bin/env python3
"""Writes the Grafana dashboards beside this file: deploy/grafana/dashboards/*.json.

Each is a list of rows, each row a list of panels, each panel a line: so they are uniform, and a change of a metric is found by its name.

    dashboards.py            write them
    dashboards.py --check    end with 1 if the files are not what would be written
"""
import json
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
GREEN, YELLOW, RED = "green", "yellow", "red"
# Wide enough for a scrape every minute.
RATE = "$__rate_interval"


def steps(*pairs, first=GREEN):
    """Colours from values on."""
    return [{"color": first, "value": None}] + [{"color": color, "value": value} for value, color in pairs]


BAD_ABOVE_ZERO = steps((1, RED))
WARN_ABOVE_ZERO = steps((1, YELLOW))
GOOD_FROM_ONE = steps((1, GREEN), first=RED)
NEUTRAL = [{"color": "blue", "value": None}]


def panel(kind, title, description, unit, queries, thresholds=None, width=6, height=7, stack=False, top=None, bottom=None, text=None):
    """A panel; queries are expressions, or pairs of an expression and its legend."""
    queries = [queries] if isinstance(queries, (str, tuple)) else queries
    targets = []
    for number, query in enumerate(queries):
        expr, legend = (query, "") if isinstance(query, str) else query
        target = {"refId": chr(ord("A") + number), "datasource": SOURCE, "expr": expr, "legendFormat": legend}
        if kind in ("stat", "gauge", "table", "bargauge"):
            target["instant"] = True
        if kind == "table":
            target["format"] = "table"
        targets.append(target)
    defaults = {
        "unit": unit,
        "thresholds": {"mode": "absolute", "steps": thresholds or NEUTRAL},
        "color": {"mode": "thresholds" if kind != "timeseries" else "palette-classic"},
    }
    if top is not None:
        defaults["max"] = top
    if bottom is not None:
        defaults["min"] = bottom
    if text:
        defaults["mappings"] = [{"type": "value", "options": {str(value): {"text": word, "index": at} for at, (value, word) in enumerate(text)}}]
    options = {}
    if kind == "timeseries":
        defaults["min"] = 0 if bottom is None else bottom
        defaults["custom"] = {
            "fillOpacity": 20 if stack else 8,
            "lineWidth": 1,
            "showPoints": "never",
            "stacking": {"mode": "normal" if stack else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if thresholds else "off"},
        }
        options = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    elif kind in ("stat", "gauge", "bargauge"):
        options = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
        if kind == "stat":
            options["colorMode"] = "background" if thresholds else "value"
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "gridPos": {"w": width, "h": height},
    }


def stat(title, description, unit, query, thresholds=None, width=4, **more):
    return panel("stat", title, description, unit, query, thresholds, width, 4, **more)


def series(title, description, unit, queries, thresholds=None, width=12, stack=False, **more):
    return panel("timeseries", title, description, unit, queries, thresholds, width, 8, stack, **more)


def bars(title, description, unit, query, thresholds=None, width=12, **more):
    return panel("bargauge", title, description, unit, query, thresholds, width, 8, **more)


def table(title, description, unit, query, width=12, **more):
    return panel("table", title, description, unit, query, None, width, 8, **more)


def variable(name, label, query, many=True):
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": many,
        "includeAll": many,
        "allValue": ".*" if many else None,
    }


def dashboard(uid, title, description, rows, variables=()):
    """Places panels from left to right, row below row."""
    panels, y, number = [], 0, 0
    for name, row in rows:
        number += 1
        panels.append({"type": "row", "id": number, "title": name, "collapsed": False, "panels": [], "gridPos": {"h": 1, "w": 24, "x": 0, "y": y}})
        y += 1
        x, tallest = 0, 0
        for one in row:
            width, height = one["gridPos"]["w"], one["gridPos"]["h"]
            if x + width > 24:
                x, y, tallest = 0, y + tallest, 0
            number += 1
            panels.append({"id": number, **one, "gridPos": {"h": height, "w": width, "x": x, "y": y}})
            x, tallest = x + width, max(tallest, height)
        y += tallest
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1}
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["tresor"],
        "schemaVersion": 38,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-24h", "to": "now"},
        "timezone": "",
        "templating": {"list": [source, *variables]},
        "links": [{"type": "dashboards", "title": "Tresor", "tags": ["tresor"], "asDropdown": True, "includeVars": False, "keepTime": True}],
        "annotations": {"list": []},
        "panels": panels,
    }


C, W = "tresor_coordinator_", "tresor_worker_"


def fleet():
    def state(word, title, description, thresholds):
        return stat(title, description, "short", f'max({C}items_by_state{{state="{word}"}})', thresholds)

    return dashboard("tresor-fleet", "Tresor: is everything safe?", "Whether every machine is protected, and which is not. Green everywhere is the answer.", [
        ("In ten seconds", [
            state("ok", "Safe", "Items as fresh as their policy wants.", None),
            stat("Late", "Items without a backup in time: tresor item list --state late.", "short", f"max({C}items_late)", BAD_ABOVE_ZERO),
            state("failing", "Failing", "Items whose newest job failed: tresor item list --state failing.", BAD_ABOVE_ZERO),
            state("never", "Never backed up", "Protected items without a point: tresor item list --state never.", WARN_ABOVE_ZERO),
            state("no_schedule", "No schedule", "Protected items that nobody backs up by a schedule.", WARN_ABOVE_ZERO),
            stat("Damaged", "Items whose newest point is harmed by damage.", "short", f"max({C}items_harmed)", BAD_ABOVE_ZERO),
            stat("Leader", "Whether a coordinator leads.", "short", f"max({C}is_leader)", GOOD_FROM_ONE, text=[(0, "none"), (1, "there")]),
            stat("Coordinators to spare", "How many may still be lost; a cluster of one has none to spare.", "short", f"max({C}quorum_spare)", steps((0, YELLOW), (1, GREEN), first=RED)),
            stat("Workers ready", "Workers that were heard of lately.", "short", f'max({C}workers{{state="ready"}})', GOOD_FROM_ONE),
            stat("Workers silent", "Workers that are not heard of.", "short", f'max({C}workers{{state="silent"}})', WARN_ABOVE_ZERO),
            stat("Findings", "What the newest verifies of all vaults found wrong; nothing where none was verified.", "short", f"sum(max by (vault) ({C}vault_findings)) or vector(0)", BAD_ABOVE_ZERO),
            stat("Expiry", "Stopped while somebody has to look at a clock.", "short", f"max({C}expiry_stopped)", BAD_ABOVE_ZERO, text=[(0, "runs"), (1, "stopped")]),
        ]),
        ("In a minute", [
            series("Items by state", "All items, each in one state.", "short", [(f"max by (state) ({C}items_by_state)", "{{state}}")], stack=True),
            bars("Age of the newest point, worst item of each policy", "Of each policy the item that is furthest behind.", "s", (f"time() - max by (policy) ({C}policy_point_timestamp_seconds)", "{{policy}}")),
            table("Items by policy and state", "Counted as tresor status does.", "short", f"max by (policy, state) ({C}policy_items) > 0"),
            table("Alerts that fire", "Each has a page in docs/runbooks.", "short", 'ALERTS{alertname=~"Tresor.*"} or vector(0)'),
            series("Visible points by consistency", "crash: as after a power cut.", "short", [(f"max by (consistency) ({C}points_by_consistency)", "{{consistency}}")], stack=True),
            series("Points with a mark", "hidden: to be removed within days; held: kept whatever retention says; harmed: damage was found.", "short", [(f"max by (mark) ({C}points_by_mark)", "{{mark}}")]),
        ]),
        ("Proof", [
            bars("Since the last verify of each vault", "Vaults that were never verified are counted from when they were added.", "s", (f"time() - max by (vault) ({C}vault_verified_timestamp_seconds or {C}vault_added_timestamp_seconds)", "{{vault}}"), steps((20 * 86400, YELLOW), (40 * 86400, RED))),
            bars("Harmed points", "Points of each vault that damage was found under.", "short", (f"max by (vault) ({C}vault_points_harmed)", "{{vault}}"), BAD_ABOVE_ZERO),
            series("Catalogues behind", "What lies beside the data for the day on which all coordinators are lost.", "s", [(f"max by (vault) ({C}vault_catalogue_behind_seconds)", "{{vault}}")], steps((86400, RED))),
            series("Audit trail", "Entries per second: every change and every restore.", "cps", [(f"max(rate({C}audit_entries_total[{RATE}]))", "entries")]),
        ]),
    ])


def jobs():
    quantile = lambda q, family: f"histogram_quantile({q}, sum by (le, kind) (rate({C}{family}_bucket[{RATE}]))) >= 0 or max by (kind) ({C}{family}_count) * 0"
    return dashboard("tresor-jobs", "Tresor: jobs", "What runs, what waits, how jobs end and how long they take.", [
        ("Now", [
            stat("Running", "Jobs that a worker has.", "short", f'max({C}jobs{{state="running"}})'),
            stat("Waiting", "Jobs that wait for a worker, for their time or for another try.", "short", f'max({C}jobs{{state="queued"}})'),
            stat("Longest wait", "Of the jobs that could begin.", "s", f"max({C}jobs_longest_wait_seconds)", steps((900, YELLOW), (3600, RED))),
            stat("Failed in 24 h", "Jobs that failed for good.", "short", f'sum(increase({C}jobs_ended_total{{outcome="failed"}}[24h])) or vector(0)', BAD_ABOVE_ZERO),
            stat("Open sessions", "Writers and readers of vaults.", "short", f"max({C}sessions)"),
            stat("Points", "Recovery points, hidden ones included.", "short", f"max({C}points)"),
        ]),
        ("How they end", [
            series("Ended jobs", "By kind and outcome.", "cps", [(f"sum by (kind, outcome) (rate({C}jobs_ended_total[{RATE}]))", "{{kind}} {{outcome}}")]),
            series("Failed attempts by reason", "Of jobs that ended; lost: the worker was not heard of.", "cps", [(f"sum by (kind, reason) (rate({C}attempts_failed_total[{RATE}]))", "{{kind}} {{reason}}")]),
            series("Attempts on workers", "As workers see them.", "cps", [(f"sum by (work, outcome) (rate({W}attempts_total[{RATE}]))", "{{work}} {{outcome}}")]),
            series("Waiting and running", "By state, and what workers have.", "short", [(f"max by (state) ({C}jobs)", "{{state}}"), (f"sum(max by (worker) ({C}worker_jobs))", "on workers")]),
        ]),
        ("How long they take", [
            series("Duration, median", "Last attempts of jobs that ended.", "s", [(quantile(0.5, "job_seconds"), "{{kind}}")]),
            series("Duration, 95 %", "Last attempts of jobs that ended.", "s", [(quantile(0.95, "job_seconds"), "{{kind}}")]),
            series("Wait until the first attempt, 95 %", "From when a job could begin.", "s", [(quantile(0.95, "job_wait_seconds"), "{{kind}}")]),
            series("Bytes of done jobs", "logical is the size of the disks, stored what was put.", "Bps", [(f'sum by (kind, what) (rate({C}job_bytes_total[{RATE}]))', "{{kind}} {{what}}")]),
        ]),
    ])


def throughput():
    on = '{instance=~"$instance"}'
    and_ = 'instance=~"$instance"'
    return dashboard("tresor-throughput", "Tresor: throughput", "How fast data flows, and which stage holds it up.", [
        ("Bytes", [
            series("Backup", "read from disks; hole; known (not stored again); new (before compression); stored.", "Bps", [(f"sum by (what) (rate({W}backup_bytes_total{on}[{RATE}]))", "{{what}}")]),
            series("Restore", "written to disks, fetched from stores.", "Bps", [(f"sum by (what) (rate({W}restore_bytes_total{on}[{RATE}]))", "{{what}}")]),
            series("Verify", "Objects and disks gone through.", "Bps", [(f"sum(rate({W}verify_bytes_total{on}[{RATE}]))", "verified")]),
            series("Saved by dedup and compression", "Of what was read: not stored again, and what was left of the new by compression.", "percentunit", [
                (f'sum(rate({W}backup_bytes_total{{what="known",{and_}}}[{RATE}])) / clamp_min(sum(rate({W}backup_bytes_total{{what=~"known|new",{and_}}}[{RATE}])), 1)', "known"),
                (f'sum(rate({W}backup_bytes_total{{what="stored",{and_}}}[{RATE}])) / clamp_min(sum(rate({W}backup_bytes_total{{what="new",{and_}}}[{RATE}])), 1)', "stored of new"),
            ]),
        ]),
        ("Stages", [
            series("Segments and frames in each stage", "Average number at once. The stage where they pile up is what the job waits for: read (the disk), cut (the processors), lookup (the index), compress (the processors), pack (the store).", "short", [(f"sum by (work, stage) (rate({W}pipeline_stage_seconds_total{on}[{RATE}]))", "{{work}} {{stage}}")], stack=True),
            series("Frames on their way", "Being compressed, or waiting for the packer.", "short", [(f"sum by (instance) ({W}pipeline_frames{on})", "{{instance}}")]),
        ]),
        ("Index", [
            series("Answers to backups", "unanswered ids are stored again.", "cps", [(f"sum by (answer) (rate({W}index_ids_total{on}[{RATE}]))", "{{answer}}"), (f"sum(rate({W}index_inserted_ids_total{on}[{RATE}]))", "inserted")]),
            series("Answers as owners of slots", "not_held: the asker had another map.", "cps", [(f"sum by (answer) (rate({W}slot_answers_total{on}[{RATE}]))", "{{answer}}"), (f"sum by (outcome) (rate({W}slot_inserts_total{on}[{RATE}]))", "insert {{outcome}}")]),
            series("Entries", "Of the databases that are open, estimated.", "short", [(f"sum by (instance) ({W}index_entries{on})", "{{instance}}")]),
            series("Memory of the index", "cache and memtables are bounded.", "bytes", [(f"sum by (part) ({W}index_memory_bytes{on})", "{{part}}")], stack=True),
        ]),
    ], [variable("instance", "Worker", f"label_values({W}registered, instance)")])


def stores():
    of = 'store=~"$store"'
    return dashboard("tresor-stores", "Tresor: stores and cost", "What is asked of each store, how it answers, and what is in it.", [
        ("Requests", [
            series("Requests", "What a provider charges for, by operation.", "reqps", [(f"sum by (operation) (rate({W}store_requests_total{{{of}}}[{RATE}]))", "{{operation}}")]),
            series("Time of a request", "Average, of those that were answered.", "s", [(f"sum by (operation) (rate({W}store_request_seconds_total{{{of}}}[{RATE}])) / clamp_min(sum by (operation) (rate({W}store_requests_total{{{of},operation!=\"list\"}}[{RATE}])), 0.000001)", "{{operation}}")]),
            series("Errors", "missing and exists are answers as good as others.", "reqps", [(f"sum by (store, cause) (rate({W}store_errors_total{{{of},cause!~\"missing|exists\"}}[{RATE}]))", "{{store}} {{cause}}")]),
            series("Sent again, and on their way", "Retries per second, and requests that wait for an answer.", "short", [(f"sum by (store) (rate({W}store_retries_total{{{of}}}[{RATE}]))", "{{store}} retries"), (f"sum by (store) ({W}store_requests_in_flight{{{of}}})", "{{store}} in flight")]),
        ]),
        ("Bytes", [
            series("Traffic", "Bytes of requests that succeeded.", "Bps", [(f"sum by (store, direction) (rate({W}store_bytes_total{{{of}}}[{RATE}]))", "{{store}} {{direction}}")]),
            bars("Put into each vault", "By jobs that were done; what was deleted since is not taken off.", "bytes", (f"max by (vault) ({C}vault_put_bytes)", "{{vault}}")),
            bars("Room left", "Of stores that are folders.", "percentunit", (f'min by (place) ({W}disk_free_bytes{{place!="worker"}} / {W}disk_size_bytes{{place!="worker"}})', "{{place}}"), steps((0.1, YELLOW), (0.2, GREEN), first=RED), top=1, bottom=0),
            stat("Requests in 30 days, at this rate", "Of the last day.", "short", f"sum(increase({W}store_requests_total{{{of}}}[24h])) * 30", width=12),
        ]),
        ("Vaults", [
            bars("Points", "Hidden ones included.", "short", (f"max by (vault) ({C}vault_points)", "{{vault}}"), width=8),
            bars("Protected items", "Of each vault.", "short", (f"max by (vault) ({C}vault_items)", "{{vault}}"), width=8),
            table("Claims", "A claim grows when somebody takes the vault over.", "short", f"max by (vault) ({C}vault_claim)", width=8),
        ]),
    ], [variable("store", "Store", f"label_values({W}store_requests_total, store)")])


def coordinators():
    return dashboard("tresor-coordinators", "Tresor: coordinators", "Whether decisions are made, by whom, and how far the others are.", [
        ("Lead", [
            stat("Leads", "Coordinators that say they lead: one.", "short", f"sum({C}is_leader)", steps((1, GREEN), (2, YELLOW), first=RED)),
            stat("To spare", "Coordinators that may still be lost.", "short", f"max({C}quorum_spare)", steps((0, YELLOW), (1, GREEN), first=RED)),
            stat("Voters", "Voting coordinators.", "short", f'max({C}members{{role="voter"}})'),
            stat("Term", "It grows with every election.", "short", f"max({C}term)"),
            stat("Certificate ends in", "Of the coordinator whose ends first.", "s", f"min({C}certificate_end_timestamp_seconds) - time()", steps((7 * 86400, GREEN), first=RED)),
            stat("Authority ends in", "Of the cluster.", "s", f"min({C}authority_end_timestamp_seconds) - time()", steps((90 * 86400, GREEN), first=RED)),
        ]),
        ("Log", [
            series("Entries", "Per second, as each coordinator applies them.", "cps", [(f"rate({C}applied_index[{RATE}])", "{{instance}}")]),
            series("Not applied yet", "Committed entries.", "short", [(f"{C}commit_index - {C}applied_index", "{{instance}}")], steps((10000, RED))),
            series("Behind the leader", "Entries that a coordinator is not known to have.", "short", [(f"max by (member) ({C}member_behind_entries)", "{{member}}")]),
            series("Length of the log", "Entries since the newest snapshot.", "short", [(f"{C}commit_index - {C}first_index", "{{instance}}")]),
            series("Changes of the lead", "In a quarter of an hour.", "short", [(f"increase({C}leader_changes_total[15m])", "{{instance}}")]),
            series("Snapshots", "To and from other coordinators.", "cps", [(f"rate({C}snapshots_total[{RATE}])", "{{instance}} {{what}}")]),
        ]),
        ("Members", [
            series("Heard of", "1 while the leader hears of it.", "short", [(f"max by (member) ({C}member_reachable)", "{{member}}")], top=1),
            series("Clocks", "Minus the leader's.", "s", [(f"max by (member) ({C}member_clock_offset_seconds)", "{{member}}"), (f"max by (worker) ({C}worker_clock_offset_seconds)", "{{worker}}")], bottom=-60),
            series("Calls", "By code.", "reqps", [(f"sum by (code) (rate({C}requests_total[{RATE}]))", "{{code}}"), (f"sum(rate({C}requests_forwarded_total[{RATE}]))", "forwarded")]),
            series("Calls turned away", "By reason.", "reqps", [(f"sum by (reason) (rate({C}requests_denied_total[{RATE}])) or sum(rate({C}requests_total[{RATE}])) * 0", "{{reason}}")]),
        ]),
        ("Room", [
            bars("Bounds used", "At 100 % no more can be made.", "percentunit", (f"max by (what) ({C}bound_used_ratio)", "{{what}}"), steps((0.8, YELLOW), (0.9, RED)), top=1, bottom=0),
            series("Disk left", "Of each coordinator's folder.", "percentunit", [(f"{C}disk_free_bytes / {C}disk_size_bytes", "{{instance}}")], top=1),
            series("Log and state on disk", "Of each coordinator.", "bytes", [(f"{C}store_bytes", "{{instance}}")]),
            series("Memory", "Resident, of each coordinator.", "bytes", [(f"process_resident_memory_bytes * on (instance) group_left () ({C}has_leader * 0 + 1)", "{{instance}}")]),
            bars("Slots of the index", "Of 4096: all are granted while workers answer for them.", "short", (f"max by (state) ({C}slots)", "{{state}}"), width=6),
            bars("Slots of each worker", "Evenly, within one.", "short", (f"max by (worker) ({C}worker_slots)", "{{worker}}"), width=18),
        ]),
    ])


def worker():
    of = '{instance="$instance"}'
    inner = 'instance="$instance"'
    return dashboard("tresor-worker", "Tresor: one worker", "What one worker does, and what it lacks.", [
        ("Now", [
            stat("Registered", "Whether a coordinator knows it.", "short", f"{W}registered{of}", GOOD_FROM_ONE, text=[(0, "no"), (1, "yes")]),
            stat("Coordinator silent", "Since when none was heard of.", "s", f"{W}coordinator_silent_seconds{of}", steps((15, YELLOW), (30, RED))),
            stat("Jobs", "That it runs now.", "short", f"sum({W}attempts_running{of}) or vector(0)"),
            stat("Permits", "Jobs that it may run at a time.", "short", f"{W}permits{of}"),
            stat("Drained", "Gets no new jobs.", "short", f"{W}drained{of}", WARN_ABOVE_ZERO, text=[(0, "no"), (1, "yes")]),
            stat("Certificate ends in", "It is renewed ten days before.", "s", f"{W}certificate_end_timestamp_seconds{of} - time()", steps((7 * 86400, GREEN), first=RED)),
            table("Who it is", "Name, region and program.", "short", f"{W}info{of}", width=24),
        ]),
        ("Work", [
            series("Attempts that run", "By work and by what they do.", "short", [(f"sum by (work, stage) ({W}attempts_running{of}) or sum({W}registered{of}) * 0", "{{work}} {{stage}}")], stack=True),
            series("Attempts that ended", "By outcome.", "cps", [(f"sum by (work, outcome) (rate({W}attempts_total{of}[{RATE}]))", "{{work}} {{outcome}}")]),
            series("Backup", "Bytes.", "Bps", [(f"sum by (what) (rate({W}backup_bytes_total{of}[{RATE}]))", "{{what}}")]),
            series("Stages", "Segments and frames in each, on average.", "short", [(f"sum by (work, stage) (rate({W}pipeline_stage_seconds_total{of}[{RATE}]))", "{{work}} {{stage}}")], stack=True),
            series("Duration of attempts, 95 %", "By work.", "s", [(f"histogram_quantile(0.95, sum by (le, work) (rate({W}attempt_seconds_bucket{of}[{RATE}]))) >= 0 or max by (work) ({W}attempt_seconds_count{of}) * 0", "{{work}}")]),
            series("Beats", "By which leases are renewed.", "cps", [(f"sum by (outcome) (rate({W}beats_total{of}[{RATE}]))", "{{outcome}}")]),
        ]),
        ("Index", [
            stat("Slots held", "Slots of the index that it answers for.", "short", f"{W}slots_held{of}"),
            stat("Shares being made", "One slot of one vault each.", "short", f"{W}slots_filling{of}", WARN_ABOVE_ZERO),
            stat("Databases open", "One for each vault.", "short", f"{W}indexes_open{of}"),
            stat("Entries", "Estimated.", "short", f"{W}index_entries{of}"),
            stat("On disk", "Files of rows.", "bytes", f"{W}index_disk_bytes{of}"),
            stat("In memory", "All parts.", "bytes", f"sum({W}index_memory_bytes{of})"),
            series("Answers as an owner", "Ids per second.", "cps", [(f"sum by (answer) (rate({W}slot_answers_total{of}[{RATE}]))", "{{answer}}")]),
            series("Calls refused as an owner", "The session was over, or of another cluster.", "cps", [(f"sum(rate({W}slot_calls_refused_total{of}[{RATE}]))", "refused")]),
        ]),
        ("The process", [
            series("Memory", "Resident.", "bytes", [(f"process_resident_memory_bytes{of}", "resident")], width=8),
            series("Processors", "Cores in use.", "short", [(f"rate(process_cpu_seconds_total{of}[{RATE}])", "cores")], width=8),
            series("Disks", "Room left.", "percentunit", [(f"{W}disk_free_bytes{of} / {W}disk_size_bytes{of}", "{{place}}")], width=8, top=1),
            series("Files", "Open.", "short", [(f"process_open_fds{of}", "open"), (f"process_max_fds{of}", "at most")], width=8),
            series("Stores", "Requests per second.", "reqps", [(f"sum by (store) (rate({W}store_requests_total{of}[{RATE}]))", "{{store}}")], width=8),
            series("Verify findings", "Places where it found something wrong.", "cps", [(f"sum(rate({W}verify_findings_total{of}[{RATE}]))", "findings")], width=8),
        ]),
    ], [variable("instance", "Worker", f"label_values({W}registered, instance)", many=False)])


def item():
    of = '{item="$item",vault=~"$vault"}'
    return dashboard("tresor-item", "Tresor: one item", "One machine. Coordinators show items by themselves only when they are started with --item-metrics.", [
        ("Now", [
            table("State", "As tresor item show says it; why: tresor explain item NAME.", "short", f"max by (item, vault, state) (tresor_item_state{of}) == 1", width=8),
            stat("Newest point", "Its age.", "s", f"time() - max(tresor_item_point_timestamp_seconds{of})", steps((86400, YELLOW), (2 * 86400, RED)), width=8),
            stat("Failed in a row", "Jobs of this item.", "short", f"max(tresor_item_failures{of})", BAD_ABOVE_ZERO, width=8),
        ]),
        ("Over time", [
            series("Age of the newest point", "It falls to zero with every backup.", "s", [(f"time() - max by (vault) (tresor_item_point_timestamp_seconds{of})", "{{vault}}")]),
            series("State", "1 for the state that it is in.", "short", [(f"max by (state) (tresor_item_state{of})", "{{state}}")], stack=True),
            series("Failures in a row", "Back to zero with the next good backup.", "short", [(f"max by (vault) (tresor_item_failures{of})", "{{vault}}")]),
        ]),
    ], [
        variable("item", "Item", "label_values(tresor_item_state, item)", many=False),
        variable("vault", "Vault", 'label_values(tresor_item_state{item="$item"}, vault)'),
    ])


def main():
    boards = {"fleet": fleet(), "jobs": jobs(), "throughput": throughput(), "stores": stores(), "coordinators": coordinators(), "worker": worker(), "item": item()}
    stale = []
    for name, board in boards.items():
        path = FOLDER / f"{name}.json"
        text = json.dumps(board, indent=1) + "\n"
        if "--check" in sys.argv:
            if not path.exists() or path.read_text() != text:
                stale.append(path.name)
        else:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(text)
    if stale:
        sys.exit(f"not what dashboards.py writes: {', '.join(stale)}")


main()
