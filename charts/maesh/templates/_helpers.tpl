{{/* Name of everything: the release's name, with the chart's unless it is in there already. */}}
{{- define "maesh.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* Labels that select pods; they can never change. Takes (list context role). */}}
{{- define "maesh.selector" -}}
app.kubernetes.io/name: maesh
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Labels of every object; ours win. Takes (list context role), and further labels as a third. */}}
{{- define "maesh.labels" -}}
{{- $context := index . 0 }}
{{- $labels := include "maesh.selector" . | fromYaml }}
{{- $_ := set $labels "app.kubernetes.io/version" $context.Chart.AppVersion }}
{{- $_ := set $labels "app.kubernetes.io/part-of" "maesh" }}
{{- $_ := set $labels "app.kubernetes.io/managed-by" $context.Release.Service }}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" $context.Chart.Name $context.Chart.Version) }}
{{- $further := dict }}
{{- if gt (len .) 2 }}{{ $further = index . 2 }}{{ end }}
{{- toYaml (merge $labels $further $context.Values.commonLabels) }}
{{- end }}

{{- define "maesh.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}
{{- else if eq $image.tag "latest" }}{{ fail "image.tag: latest cannot be rolled back; name a version, or set image.digest" }}
{{- else }}{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* The Secret and the ConfigMap of the stream's authority; the controller makes both. */}}
{{- define "maesh.ca" -}}
{{ include "maesh.fullname" . }}-ca
{{- end }}

{{/* Name in the controller's certificate, and of its Service. */}}
{{- define "maesh.server" -}}
{{ include "maesh.fullname" . }}-controller.{{ .Release.Namespace }}.svc
{{- end }}

{{/* Metadata of a role's pods. Takes (list context role port), and annotations that it cannot do without as a fourth. */}}
{{- define "maesh.podMetadata" -}}
{{- $context := index . 0 }}{{ $role := index $context.Values (index . 1) -}}
labels:
  {{- include "maesh.labels" (list $context (index . 1) $role.podLabels) | nindent 2 }}
{{- $annotations := dict }}
{{- if gt (len .) 3 }}{{ $annotations = index . 3 }}{{ end }}
{{- if $context.Values.monitoring.annotations }}
{{- $annotations = merge $annotations (dict "prometheus.io/scrape" "true" "prometheus.io/port" (index . 2 | toString) "prometheus.io/path" "/metrics") }}
{{- end }}
{{- with mergeOverwrite $annotations $role.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What every role's pod has in common. Takes (list context role). */}}
{{- define "maesh.pod" -}}
{{- $context := index . 0 }}{{ $name := index . 1 }}{{ $role := index $context.Values $name -}}
serviceAccountName: {{ include "maesh.fullname" $context }}-{{ $name }}
{{- with $context.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
# Their variables could be taken for ours, which begin with MAESH_ too.
enableServiceLinks: false
{{- with $role.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- range $field := list "nodeSelector" "tolerations" "affinity" }}
{{- with index $role $field }}
{{ $field }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "maesh.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Spread over nodes and zones, where that is possible. Takes (list context role). */}}
{{- define "maesh.spread" -}}
{{- $context := index . 0 }}
{{- with (index $context.Values (index . 1)).topologySpreadConstraints }}
{{- toYaml . }}
{{- else }}
{{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- maxSkew: 1
  topologyKey: {{ $key }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "maesh.selector" $ | nindent 6 }}
{{- end }}
{{- end }}
{{- end }}

{{/* Image and rights of a container. Takes (list context name). */}}
{{- define "maesh.program" -}}
{{- $context := index . 0 -}}
name: {{ index . 1 }}
image: {{ include "maesh.image" $context }}
imagePullPolicy: {{ $context.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Image, rights and probes of a role's container. Takes (list context role). */}}
{{- define "maesh.container" -}}
{{- $context := index . 0 }}{{ $role := index $context.Values (index . 1) -}}
{{ include "maesh.program" . }}
livenessProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 1
  timeoutSeconds: 1
  failureThreshold: 3
resources:
  {{- toYaml $role.resources | nindent 2 }}
{{- end }}

{{/* Whole seconds of a duration such as 1m30s, rounded up. */}}
{{- define "maesh.seconds" -}}
{{- $milliseconds := 0 }}
{{- range regexFindAll "[0-9]+(ms|s|m|h)" . -1 }}
{{- $unit := regexFind "[a-z]+" . }}
{{- $milliseconds = add $milliseconds (mul (trimSuffix $unit . | int64) (get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) $unit)) }}
{{- end }}
{{- div (add $milliseconds 999) 1000 }}
{{- end }}

{{/* Flags that every role knows. */}}
{{- define "maesh.logFlags" -}}
- --log-level={{ .Values.logs.level }}
- --log-format={{ .Values.logs.format }}
{{- end }}

{{/* What a person's `maesh dns` has to be told of this release, where it differs from the default. */}}
{{- define "maesh.ofOurs" -}}
{{- $service := printf "%s-dns" (include "maesh.fullname" .) }}
{{- if ne $service "maesh-dns" }} --dns-service={{ $service }}{{ end }}
{{- if ne (join " " .Values.zones) "maesh traefik.mesh" }}{{ range .Values.zones }} --zone={{ . }}{{ end }}{{ end }}
{{- end }}

{{/* Flags of who looks after the stanza in the cluster's DNS. */}}
{{- define "maesh.corednsFlags" -}}
- --coredns-mode={{ .Values.coredns.mode }}
- --dns-service={{ include "maesh.fullname" . }}-dns
{{- end }}

{{/* Flags of dns and proxy for the stream from the controller. */}}
{{- define "maesh.subscribeFlags" -}}
- --controller={{ include "maesh.server" . }}:5390
- --tls-ca=/etc/maesh/discovery/ca.crt
- --tls-server-name={{ include "maesh.server" . }}
- --token-file=/etc/maesh/discovery/token
- --state-dir=/var/lib/maesh
{{- end }}

{{- define "maesh.subscribeMounts" -}}
- {name: discovery, mountPath: /etc/maesh/discovery, readOnly: true}
- {name: state, mountPath: /var/lib/maesh}
{{- end }}

{{- define "maesh.subscribeVolumes" -}}
- name: discovery
  projected:
    defaultMode: 288 # 0440
    sources:
      # Made by the controller: pods wait for it at the first start.
      - configMap:
          name: {{ include "maesh.ca" . }}
          items: [{key: ca.crt, path: ca.crt}]
      # For the controller alone: the API server does not take it. A day, so that it outlasts an outage of the API server.
      - serviceAccountToken: {audience: maesh, expirationSeconds: 86400, path: token}
- name: state
  emptyDir: {sizeLimit: 256Mi}
{{- end }}

{{- define "maesh.subscribeEnv" -}}
- name: MAESH_POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: MAESH_NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
{{- end }}
