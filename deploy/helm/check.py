#!/usr/bin/env python3
"""Renders the chart as Helm does, with values of several kinds, and holds what comes out against the schemas of Kubernetes.

    deploy/helm/check.py CHART     (a folder or an archive)

Needs the Python packages helm-python-sdk (Helm's own engine) and kubernetes-validate. Objects of kinds that Kubernetes does not have
(ServiceMonitor, PrometheusRule) are only parsed.
"""

import sys
from pathlib import Path

import helm_python.chart as helm
import kubernetes_validate as kubernetes
import yaml

# The oldest and the newest that is promised (kubeVersion) and has schemas.
VERSIONS = ["1.27", "1.34"]

CASES = {
    "as it is": {},
    "everything": {
        "imagePullSecrets": [{"name": "pull"}],
        "coordinators": {
            "replicas": 5,
            "antiAffinity": "preferred",
            "nodeSelector": {"disk": "fast"},
            "tolerations": [{"operator": "Exists"}],
            "storage": {"className": "fast"},
            "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
        },
        "workers": {
            "labels": {"rack": "7"},
            "region": "eu-1",
            "options": ["--no-slots"],
            "config": '[stores."s3://b"]\nregion = "eu-1"\n',
            "storeSecret": "stores",
            "hostPaths": ["/var/lib/libvirt/images", "/srv/images"],
            "readAnyFile": True,
            "nodeSelector": {"disks": "yes"},
            "tolerations": [{"operator": "Exists"}],
        },
        "networkPolicy": {"clients": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
    },
    "workers in a set": {"workers": {"kind": "StatefulSet", "supplementalGroups": [6, 36], "storage": {"className": "slow"}}},
    "no workers, no network policy": {"workers": {"kind": "None"}, "networkPolicy": {"enabled": False}},
}
MONITORED = {"monitoring": {"serviceMonitor": True, "prometheusRule": True, "dashboards": True, "labels": {"release": "p"}}}
REFUSED = {
    "an even number of coordinators": {"coordinators": {"replicas": 2}},
    "a misspelled value": {"coordinator": {}},
    "a kind that is none": {"workers": {"kind": "Deployment"}},
}


def objects(chart, values):
    rendered = chart.render(values=values, name="prod", namespace="backup")
    for path, text in sorted(rendered.items()):
        if path.endswith(".yaml"):
            for found in yaml.safe_load_all(text):
                if found:
                    yield path, found


def pods(found):
    """The pods' specifications that an object has."""
    spec = found.get("spec", {})
    if found["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    if "template" in spec:
        yield spec["template"]["spec"]


def faults(found):
    """What every pod of ours keeps to, whatever the values."""
    for pod in pods(found):
        if pod.get("automountServiceAccountToken") is not False:
            yield "mounts the account's token without being asked"
        for container in pod["containers"] + pod.get("initContainers", []):
            security = container.get("securityContext", {})
            if not security.get("readOnlyRootFilesystem") or security.get("allowPrivilegeEscalation") is not False:
                yield f"{container['name']}: may write to its root, or gain privileges"
            if security.get("capabilities", {}).get("drop") != ["ALL"]:
                yield f"{container['name']}: keeps capabilities"
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            volumes = {volume["name"] for volume in pod.get("volumes", [])}
            claims = {claim["metadata"]["name"] for claim in found["spec"].get("volumeClaimTemplates", [])}
            for name in mounted - volumes - claims:
                yield f"{container['name']}: mounts {name}, which the pod does not have"


def main():
    path = Path(sys.argv[1])
    problems = []
    report = helm.lint(path, strict=True, namespace="backup")
    problems += [f"lint: {message['path']}: {message['error']}" for message in report["messages"] if message["severity"] > 1]
    problems += [f"lint: {error}" for error in report["errors"]]
    count = 0
    with helm.Chart.load(path) as chart:
        files = {file["name"] for file in chart.files}
        cases = dict(CASES)
        # Alerts and dashboards come in when the chart is packaged.
        if "files/tresor-alerts.yaml" in files and any(name.startswith("files/dashboards/") for name in files):
            cases["monitored"] = MONITORED
        else:
            print("not rendered: alerts and dashboards (they are not in this chart)")
            cases["monitored"] = {"monitoring": {"serviceMonitor": True}}
        for case, values in cases.items():
            names = set()
            for where, found in objects(chart, values):
                count += 1
                name = f"{found['kind']}/{found['metadata']['name']}"
                if name in names:
                    problems.append(f"{case}: {name} is there twice")
                names.add(name)
                problems += [f"{case}: {name}: {fault}" for fault in faults(found)]
                if found["apiVersion"].startswith("monitoring.coreos.com/"):
                    continue
                for version in VERSIONS:
                    try:
                        kubernetes.validate(found, version, strict=True)
                    except kubernetes.ValidationError as error:
                        problems.append(f"{case}: {where}: {name}, Kubernetes {version}: {error.message}")
        for case, values in REFUSED.items():
            try:
                chart.validate_schema(values)
                problems.append(f"{case} is not refused")
            except Exception:  # noqa: BLE001  (each way to refuse is right)
                pass
    for problem in problems:
        print(problem)
    print(f"{count} objects in {len(cases)} kinds of values, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
