{{- define "tresor.name" -}}
{{- if contains "tresor" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-tresor" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "tresor.labels" -}}
{{ include "tresor.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "tresor.selector" -}}
app.kubernetes.io/name: tresor
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tresor.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Where any coordinator that is ready answers. */}}
{{- define "tresor.coordinators" -}}
{{ include "tresor.name" . }}-coordinator.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}:7420
{{- end }}

{{- define "tresor.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "tresor.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "tresor.env" -}}
- {name: TRESOR_HOME, value: /var/lib/tresor}
- {name: TRESOR_LOG, value: {{ .Values.log | quote }}}
- {name: TRESOR_LOG_FORMAT, value: {{ .Values.logFormat | quote }}}
{{- end }}

{{/* The account's token, as a pod has it by itself; but only where it is mounted on purpose. */}}
{{- define "tresor.account" -}}
- name: account
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3600}
      - configMap:
          name: kube-root-ca.crt
          items: [{key: ca.crt, path: ca.crt}]
      - downwardAPI:
          items:
            - path: namespace
              fieldRef: {fieldPath: metadata.namespace}
{{- end }}

{{/* The pod that makes join tokens and publishes them. */}}
{{- define "tresor.tokensPod" -}}
metadata:
  labels:
    {{- include "tresor.selector" . | nindent 4 }}
    app.kubernetes.io/component: tokens
spec:
  restartPolicy: OnFailure
  serviceAccountName: {{ include "tresor.name" . }}-bootstrap
  automountServiceAccountToken: false
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext: {{- include "tresor.podSecurity" . | nindent 4 }}
  containers:
    - name: tokens
      image: {{ include "tresor.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      command: [bash, -euo, pipefail, -c]
      args:
        - |
          tresor-tokens "$ADDRESSES" /run/tresor-admin /run/tresor-join "$COORDINATORS" "$WORKERS" "$VALID"
          tresor-publish "$SECRET" /run/tresor-join
      env:
        {{- include "tresor.env" . | nindent 8 }}
        - {name: ADDRESSES, value: {{ include "tresor.coordinators" . | quote }}}
        - {name: COORDINATORS, value: {{ .Values.coordinators.replicas | quote }}}
        - {name: WORKERS, value: {{ .Values.joinTokens.workers | int | quote }}}
        - {name: VALID, value: {{ .Values.joinTokens.valid | quote }}}
        - {name: SECRET, value: {{ include "tresor.name" . }}-join}
      resources:
        requests: {cpu: 50m, memory: 64Mi}
        limits: {memory: 256Mi}
      securityContext: {{- include "tresor.security" . | nindent 8 }}
      volumeMounts:
        - {name: home, mountPath: /var/lib/tresor}
        - {name: join, mountPath: /run/tresor-join}
        - {name: tmp, mountPath: /tmp}
        - {name: admin, mountPath: /run/tresor-admin, readOnly: true}
        - {name: account, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
  volumes:
    - {name: home, emptyDir: {medium: Memory, sizeLimit: 16Mi}}
    - {name: join, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
    - {name: tmp, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
    # The pod waits until the first coordinator has published it.
    - {name: admin, secret: {secretName: {{ include "tresor.name" . }}-admin, defaultMode: 0440}}
    {{- include "tresor.account" . | nindent 4 }}
{{- end }}
