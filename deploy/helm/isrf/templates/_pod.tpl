{{/* What the pods of service and job have in common. */}}

{{/* Takes {component, context}. */}}
{{- define "isrf.podLabels" -}}
{{- with .context.Values.podLabels }}
{{- toYaml . }}
{{ end }}
{{- include "isrf.labels" .context }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "isrf.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "isrf.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "isrf.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Helm reads numbers as floats, and would print 2097152 as 2.097152e+06. */}}
{{- define "isrf.text" -}}
{{- if kindIs "string" . }}{{ . | quote }}{{ else }}{{ . | toJson | quote }}{{ end }}
{{- end }}

{{- define "isrf.variables" -}}
{{- range $name, $value := .Values.variables }}
- name: {{ $name }}
  value: {{ include "isrf.text" $value }}
{{- end }}
{{- end }}

{{- define "isrf.credentials" -}}
{{- with .Values.releases.credentialsSecret }}
envFrom:
  - secretRef:
      name: {{ . }}
{{- end }}
{{- end }}

{{/* Of the job: for the object store, and for what else the job calls. */}}
{{- define "isrf.jobCredentials" -}}
{{- with list .Values.releases.credentialsSecret .Values.job.credentialsSecret | compact | uniq }}
envFrom:
{{- range . }}
  - secretRef:
      name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Redis' URL and the erasure key, which service and job read. */}}
{{- define "isrf.secretVariables" -}}
- name: REDIS_URL_FILE
  value: /var/lib/isrf/secrets/redis.url
- name: ISRF_ERASURE_KEY_FILE
  value: /var/lib/isrf/secrets/erasure.key
{{- end }}

{{- define "isrf.secretSources" -}}
- secret:
    name: {{ .Values.redis.existingSecret }}
    items:
      - {key: {{ .Values.redis.key | quote }}, path: redis.url}
- secret:
{{- if .Values.erasureKey.existingSecret }}
    name: {{ .Values.erasureKey.existingSecret }}
    items:
      - {key: {{ .Values.erasureKey.key | quote }}, path: erasure.key}
{{- else }}
    name: {{ include "isrf.madeSecret" . }}
    items:
      - {key: erasure.key, path: erasure.key}
{{- end }}
{{- end }}

{{- define "isrf.releasesPlace" -}}
{{- default "/var/lib/isrf/releases" .Values.releases.url }}
{{- end }}

{{- define "isrf.cacheBytes" -}}
{{- mul (div (mul (trimSuffix "Gi" .Values.releases.cacheSize | int) 1073741824) 10) 9 }}
{{- end }}

{{/* The pod of the job: events are taken in, then a release is trained and published. */}}
{{- define "isrf.jobContainer" -}}
image: {{ include "isrf.image" (dict "image" .Values.image.offline "context" .) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- include "isrf.containerSecurity" . | nindent 2 }}
{{- include "isrf.jobCredentials" . }}
env:
  {{- include "isrf.secretVariables" . | nindent 2 }}
  {{- include "isrf.variables" . | nindent 2 }}
  - {name: HOME, value: /tmp}
volumeMounts:
  - {name: data, mountPath: /data}
  - {name: secrets, mountPath: /var/lib/isrf/secrets, readOnly: true}
  - {name: tmp, mountPath: /tmp}
{{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .Values.releases.existingClaim }}
  - {name: releases, mountPath: /var/lib/isrf/releases}
{{- end }}
{{- end }}

{{- define "isrf.jobVolumes" -}}
- name: data
  persistentVolumeClaim:
    claimName: {{ include "isrf.dataClaim" . }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- include "isrf.secretSources" . | nindent 6 }}
- name: tmp
  emptyDir: {}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- if .Values.releases.existingClaim }}
- name: releases
  persistentVolumeClaim:
    claimName: {{ .Values.releases.existingClaim }}
{{- end }}
{{- end }}

{{- define "isrf.ingestArguments" -}}
{{- list "ingest" "--data" "/data/shop" "--from-redis" "env" | toJson }}
{{- end }}

{{- define "isrf.runArguments" -}}
{{- $arguments := list "run" "--data" "/data/shop" "--releases" (include "isrf.releasesPlace" .) "--preset" .Values.job.preset }}
{{- if ne .Values.job.ray.mode "off" }}
{{- $arguments = concat $arguments (list "--engine" "ray") }}
{{- end }}
{{- if eq .Values.job.ray.mode "address" }}
{{- $arguments = concat $arguments (list "--ray-address" .Values.job.ray.address) }}
{{- end }}
{{- concat $arguments .Values.job.arguments | toJson }}
{{- end }}
