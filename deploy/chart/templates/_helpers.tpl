{{- define "tokenry.name" -}}
{{- printf "%s-%s" .root.Release.Name .role | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "tokenry.selector" -}}
app.kubernetes.io/name: tokenry
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end }}

{{- define "tokenry.labels" -}}
{{ include "tokenry.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "tokenry.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}{{ $image.repository }}@{{ $image.digest }}{{- else -}}{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}{{- end -}}
{{- end }}

{{/* Pod Security "restricted". */}}
{{- define "tokenry.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "tokenry.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{- define "tokenry.revocationHost" -}}
{{ include "tokenry.name" (dict "root" . "role" "revocation") }}.{{ .Release.Namespace }}.svc
{{- end }}

{{- define "tokenry.revocationUrl" -}}
{{ .Values.revocationUrl | default (printf "http://%s" (include "tokenry.revocationHost" .)) }}
{{- end }}

{{- define "tokenry.credentialsUrl" -}}
{{ required "issuer.credentialsUrl is required" .Values.issuer.credentialsUrl }}
{{- end }}

{{/* The host of a role of this release, as the cluster knows it. */}}
{{- define "tokenry.host" -}}
{{ include "tokenry.name" . }}.{{ .root.Release.Namespace }}.svc
{{- end }}

{{- define "tokenry.tokeninfoUrl" -}}
{{ .Values.tokeninfoUrl | default (printf "http://%s" (include "tokenry.host" (dict "root" . "role" "tokeninfo"))) }}
{{- end }}

{{/* Services of this release that a role calls by plain HTTP, separated by commas. */}}
{{- define "tokenry.plainHosts" -}}
{{- $hosts := list }}
{{- $root := .root }}
{{- if eq .role "console" }}
{{- range $role := list "issuer" "tokeninfo" "revocation" "admin" }}
{{- if (index $root.Values $role).enabled }}
{{- $hosts = append $hosts (include "tokenry.host" (dict "root" $root "role" $role)) }}
{{- end }}
{{- end }}
{{- else if not $root.Values.revocationUrl }}
{{- $hosts = append $hosts (include "tokenry.revocationHost" $root) }}
{{- end }}
{{- join "," $hosts }}
{{- end }}

{{/* What every service is told. */}}
{{- define "tokenry.env" -}}
{{- $scope := . }}
{{- with .root }}
- { name: TOKENRY_ISSUER, value: {{ required "issuerUrl is required" .Values.issuerUrl | quote }} }
- { name: TOKENRY_ENVIRONMENT, value: {{ .Values.environment | quote }} }
- { name: TOKENRY_LISTEN_ADDRESS, value: "0.0.0.0:8080" }
- { name: TOKENRY_METRICS_LISTEN_ADDRESS, value: "0.0.0.0:9100" }
- { name: TOKENRY_TRUSTED_PROXIES, value: {{ join "," .Values.trustedProxies | quote }} }
{{- with include "tokenry.plainHosts" $scope }}
# Services of the same release, in the same cluster. Set revocationUrl to an https URL to have none of this; the console
# reads metrics in this way.
- { name: TOKENRY_PLAIN_HTTP_HOSTS, value: {{ . | quote }} }
{{- end }}
- name: TOKENRY_INSTANCE
  valueFrom: { fieldRef: { fieldPath: metadata.name } }
{{- end }}
{{- end }}

{{- define "tokenry.issuerEnv" -}}
- { name: TOKENRY_CREDENTIALS_URL, value: {{ include "tokenry.credentialsUrl" . | quote }} }
- { name: TOKENRY_ENVELOPE_KEY_FILE, value: /run/tokenry/envelope.key }
{{- with .Values.tokeninfoUrl }}
- { name: TOKENRY_TOKENINFO_URL, value: {{ . | quote }} }
{{- end }}
- { name: TOKENRY_REVOCATION_URL, value: {{ include "tokenry.revocationUrl" . | quote }} }
- { name: TOKENRY_STATE_FOLDER, value: /var/lib/tokenry }
{{- end }}

{{- define "tokenry.tokeninfoEnv" -}}
- { name: TOKENRY_REVOCATION_URL, value: {{ include "tokenry.revocationUrl" . | quote }} }
- { name: TOKENRY_STATE_FOLDER, value: /var/lib/tokenry }
{{- end }}

{{- define "tokenry.revocationEnv" -}}
- { name: TOKENRY_STORE_URL, value: {{ required "revocation.storeUrl is required" .Values.revocation.storeUrl | quote }} }
- name: TOKENRY_REVOCATION_HASHING_SALT
  valueFrom: { secretKeyRef: { name: {{ .Values.revocation.secret }}, key: hashing-salt } }
{{- if .Values.revocation.storeAuthentication }}
- name: TOKENRY_STORE_USERNAME
  valueFrom: { secretKeyRef: { name: {{ .Values.revocation.secret }}, key: store-username } }
- name: TOKENRY_STORE_PASSWORD
  valueFrom: { secretKeyRef: { name: {{ .Values.revocation.secret }}, key: store-password } }
{{- end }}
{{- with .Values.revocation.rulesUrl }}
- { name: TOKENRY_RULES_URL, value: {{ . | quote }} }
{{- end }}
{{- end }}

{{- define "tokenry.adminEnv" -}}
{{- if and .Values.admin.rotatesKeys .Values.keyRotation.enabled }}
{{- fail "admin.rotatesKeys and keyRotation.enabled do the same: choose one" }}
{{- end }}
- { name: TOKENRY_CREDENTIALS_URL, value: {{ include "tokenry.credentialsUrl" . | quote }} }
{{- if .Values.admin.rotatesKeys }}
- { name: TOKENRY_ENVELOPE_KEY_FILE, value: /run/tokenry/envelope.key }
{{- end }}
{{- with .Values.admin.applicationFiles }}
- { name: TOKENRY_APPLICATION_FILES, value: {{ join "," . | quote }} }
{{- end }}
- { name: TOKENRY_REVOCATION_URL, value: {{ include "tokenry.revocationUrl" . | quote }} }
- { name: TOKENRY_STATE_FOLDER, value: /var/lib/tokenry }
{{- end }}

{{- define "tokenry.consoleEnv" -}}
{{- $top := . }}
- { name: TOKENRY_REVOCATION_URL, value: {{ include "tokenry.revocationUrl" . | quote }} }
- { name: TOKENRY_TOKENINFO_URL, value: {{ include "tokenry.tokeninfoUrl" . | quote }} }
{{- if .Values.admin.enabled }}
- { name: TOKENRY_CONSOLE_ADMIN_URL, value: {{ printf "http://%s" (include "tokenry.host" (dict "root" . "role" "admin")) | quote }} }
{{- end }}
{{- $metrics := .Values.console.metricsUrls }}
{{- if not $metrics }}
{{- range $role := list "issuer" "tokeninfo" "revocation" "admin" }}
{{- if (index $top.Values $role).enabled }}
{{- $metrics = append $metrics (printf "http://%s:9100/metrics" (include "tokenry.host" (dict "root" $top "role" $role))) }}
{{- end }}
{{- end }}
{{- end }}
{{- with $metrics }}
- { name: TOKENRY_CONSOLE_METRICS_URLS, value: {{ join "," . | quote }} }
{{- end }}
{{- end }}
