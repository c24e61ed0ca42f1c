"""The fields of Kubernetes' built-in objects, as its published protobuf definitions number them.

Made by ``tools/lab/kubernetes_types.py`` from the definitions of Kubernetes 1.37, by the
Kubernetes Authors, under the Apache License 2.0.

    package core.v1
    Pod: metadata=1 meta.v1.ObjectMeta, spec=2 PodSpec, ...

``*`` repeated, ``{}`` a map from strings, ``<`` a message whose fields JSON shows as those of the message around it.
An indented line continues the one before.
"""

TABLE = """
package admissionregistration.v1
ApplyConfiguration: expression=1 string
AuditAnnotation: key=1 string, valueExpression=2 string
ExpressionWarning: fieldRef=2 string, warning=3 string
JSONPatch: expression=1 string
MatchCondition: name=1 string, expression=2 string
MatchResources: namespaceSelector=1 meta.v1.LabelSelector, objectSelector=2 meta.v1.LabelSelector,
    resourceRules=3 NamedRuleWithOperations*, excludeResourceRules=4 NamedRuleWithOperations*,
    matchPolicy=7 string
MutatingAdmissionPolicy: metadata=1 meta.v1.ObjectMeta, spec=2 MutatingAdmissionPolicySpec
MutatingAdmissionPolicySpec: paramKind=1 ParamKind, matchConstraints=2 MatchResources, variables=3 Variable*,
    mutations=4 Mutation*, failurePolicy=5 string, matchConditions=6 MatchCondition*,
    reinvocationPolicy=7 string
MutatingWebhook: name=1 string, clientConfig=2 WebhookClientConfig, rules=3 RuleWithOperations*,
    failurePolicy=4 string, matchPolicy=9 string, namespaceSelector=5 meta.v1.LabelSelector,
    objectSelector=11 meta.v1.LabelSelector, sideEffects=6 string, timeoutSeconds=7 int,
    admissionReviewVersions=8 string*, reinvocationPolicy=10 string, matchConditions=12 MatchCondition*
MutatingWebhookConfiguration: metadata=1 meta.v1.ObjectMeta, Webhooks=2 MutatingWebhook*
Mutation: patchType=2 string, applyConfiguration=3 ApplyConfiguration, jsonPatch=4 JSONPatch
NamedRuleWithOperations: resourceNames=1 string*, ruleWithOperations=2 RuleWithOperations<
ParamKind: apiVersion=1 string, kind=2 string
Rule: apiGroups=1 string*, apiVersions=2 string*, resources=3 string*, scope=4 string
RuleWithOperations: operations=1 string*, rule=2 Rule<
ServiceReference: namespace=1 string, name=2 string, path=3 string, port=4 int
TypeChecking: expressionWarnings=1 ExpressionWarning*
ValidatingAdmissionPolicy: metadata=1 meta.v1.ObjectMeta, spec=2 ValidatingAdmissionPolicySpec,
    status=3 ValidatingAdmissionPolicyStatus
ValidatingAdmissionPolicySpec: paramKind=1 ParamKind, matchConstraints=2 MatchResources,
    validations=3 Validation*, failurePolicy=4 string, auditAnnotations=5 AuditAnnotation*,
    matchConditions=6 MatchCondition*, variables=7 Variable*
ValidatingAdmissionPolicyStatus: observedGeneration=1 int, typeChecking=2 TypeChecking,
    conditions=3 meta.v1.Condition*
ValidatingWebhook: name=1 string, clientConfig=2 WebhookClientConfig, rules=3 RuleWithOperations*,
    failurePolicy=4 string, matchPolicy=9 string, namespaceSelector=5 meta.v1.LabelSelector,
    objectSelector=10 meta.v1.LabelSelector, sideEffects=6 string, timeoutSeconds=7 int,
    admissionReviewVersions=8 string*, matchConditions=11 MatchCondition*
ValidatingWebhookConfiguration: metadata=1 meta.v1.ObjectMeta, Webhooks=2 ValidatingWebhook*
Validation: Expression=1 string, message=2 string, reason=3 string, messageExpression=4 string
Variable: Name=1 string, Expression=2 string
WebhookClientConfig: url=3 string, service=1 ServiceReference, caBundle=2 bytes
package admissionregistration.v1beta1
ApplyConfiguration: expression=1 string
AuditAnnotation: key=1 string, valueExpression=2 string
ExpressionWarning: fieldRef=2 string, warning=3 string
JSONPatch: expression=1 string
MatchCondition: name=1 string, expression=2 string
MatchResources: namespaceSelector=1 meta.v1.LabelSelector, objectSelector=2 meta.v1.LabelSelector,
    resourceRules=3 NamedRuleWithOperations*, excludeResourceRules=4 NamedRuleWithOperations*,
    matchPolicy=7 string
MutatingAdmissionPolicy: metadata=1 meta.v1.ObjectMeta, spec=2 MutatingAdmissionPolicySpec
MutatingAdmissionPolicySpec: paramKind=1 ParamKind, matchConstraints=2 MatchResources, variables=3 Variable*,
    mutations=4 Mutation*, failurePolicy=5 string, matchConditions=6 MatchCondition*,
    reinvocationPolicy=7 string
MutatingWebhook: name=1 string, clientConfig=2 WebhookClientConfig,
    rules=3 admissionregistration.v1.RuleWithOperations*, failurePolicy=4 string, matchPolicy=9 string,
    namespaceSelector=5 meta.v1.LabelSelector, objectSelector=11 meta.v1.LabelSelector, sideEffects=6 string,
    timeoutSeconds=7 int, admissionReviewVersions=8 string*, reinvocationPolicy=10 string,
    matchConditions=12 MatchCondition*
MutatingWebhookConfiguration: metadata=1 meta.v1.ObjectMeta, Webhooks=2 MutatingWebhook*
Mutation: patchType=2 string, applyConfiguration=3 ApplyConfiguration, jsonPatch=4 JSONPatch
NamedRuleWithOperations: resourceNames=1 string*,
    ruleWithOperations=2 admissionregistration.v1.RuleWithOperations<
ParamKind: apiVersion=1 string, kind=2 string
ServiceReference: namespace=1 string, name=2 string, path=3 string, port=4 int
TypeChecking: expressionWarnings=1 ExpressionWarning*
ValidatingAdmissionPolicy: metadata=1 meta.v1.ObjectMeta, spec=2 ValidatingAdmissionPolicySpec,
    status=3 ValidatingAdmissionPolicyStatus
ValidatingAdmissionPolicySpec: paramKind=1 ParamKind, matchConstraints=2 MatchResources,
    validations=3 Validation*, failurePolicy=4 string, auditAnnotations=5 AuditAnnotation*,
    matchConditions=6 MatchCondition*, variables=7 Variable*
ValidatingAdmissionPolicyStatus: observedGeneration=1 int, typeChecking=2 TypeChecking,
    conditions=3 meta.v1.Condition*
ValidatingWebhook: name=1 string, clientConfig=2 WebhookClientConfig,
    rules=3 admissionregistration.v1.RuleWithOperations*, failurePolicy=4 string, matchPolicy=9 string,
    namespaceSelector=5 meta.v1.LabelSelector, objectSelector=10 meta.v1.LabelSelector, sideEffects=6 string,
    timeoutSeconds=7 int, admissionReviewVersions=8 string*, matchConditions=11 MatchCondition*
ValidatingWebhookConfiguration: metadata=1 meta.v1.ObjectMeta, Webhooks=2 ValidatingWebhook*
Validation: Expression=1 string, message=2 string, reason=3 string, messageExpression=4 string
Variable: Name=1 string, Expression=2 string
WebhookClientConfig: url=3 string, service=1 ServiceReference, caBundle=2 bytes
package apiextensions.v1
CustomResourceColumnDefinition: name=1 string, type=2 string, format=3 string, description=4 string,
    priority=5 int, jsonPath=6 string
CustomResourceConversion: strategy=1 string, webhook=2 WebhookConversion
CustomResourceDefinition: metadata=1 meta.v1.ObjectMeta, spec=2 CustomResourceDefinitionSpec,
    status=3 CustomResourceDefinitionStatus
CustomResourceDefinitionCondition: type=1 string, status=2 string, lastTransitionTime=3 meta.v1.Time,
    reason=4 string, message=5 string, observedGeneration=6 int
CustomResourceDefinitionNames: plural=1 string, singular=2 string, shortNames=3 string*, kind=4 string,
    listKind=5 string, categories=6 string*
CustomResourceDefinitionSpec: group=1 string, names=3 CustomResourceDefinitionNames, scope=4 string,
    versions=7 CustomResourceDefinitionVersion*, conversion=9 CustomResourceConversion,
    preserveUnknownFields=10 bool
CustomResourceDefinitionStatus: conditions=1 CustomResourceDefinitionCondition*,
    acceptedNames=2 CustomResourceDefinitionNames, storedVersions=3 string*, observedGeneration=4 int
CustomResourceDefinitionVersion: name=1 string, served=2 bool, storage=3 bool, deprecated=7 bool,
    deprecationWarning=8 string, schema=4 CustomResourceValidation, subresources=5 CustomResourceSubresources,
    additionalPrinterColumns=6 CustomResourceColumnDefinition*, selectableFields=9 SelectableField*
CustomResourceSubresourceScale: specReplicasPath=1 string, statusReplicasPath=2 string,
    labelSelectorPath=3 string
CustomResourceSubresourceStatus:
CustomResourceSubresources: status=1 CustomResourceSubresourceStatus, scale=2 CustomResourceSubresourceScale
CustomResourceValidation: openAPIV3Schema=1 JSONSchemaProps
ExternalDocumentation: description=1 string, url=2 string
JSON: raw=1 bytes
JSONSchemaProps: id=1 string, schema=2 string, ref=3 string, description=4 string, type=5 string,
    format=6 string, title=7 string, default=8 JSON, maximum=9 double, exclusiveMaximum=10 bool,
    minimum=11 double, exclusiveMinimum=12 bool, maxLength=13 int, minLength=14 int, pattern=15 string,
    maxItems=16 int, minItems=17 int, uniqueItems=18 bool, multipleOf=19 double, enum=20 JSON*,
    maxProperties=21 int, minProperties=22 int, required=23 string*, items=24 JSONSchemaPropsOrArray,
    allOf=25 JSONSchemaProps*, oneOf=26 JSONSchemaProps*, anyOf=27 JSONSchemaProps*, not=28 JSONSchemaProps,
    properties=29 JSONSchemaProps{}, additionalProperties=30 JSONSchemaPropsOrBool,
    patternProperties=31 JSONSchemaProps{}, dependencies=32 JSONSchemaPropsOrStringArray{},
    additionalItems=33 JSONSchemaPropsOrBool, definitions=34 JSONSchemaProps{},
    externalDocs=35 ExternalDocumentation, example=36 JSON, nullable=37 bool,
    xKubernetesPreserveUnknownFields=38 bool, xKubernetesEmbeddedResource=39 bool,
    xKubernetesIntOrString=40 bool, xKubernetesListMapKeys=41 string*, xKubernetesListType=42 string,
    xKubernetesMapType=43 string, xKubernetesValidations=44 ValidationRule*
JSONSchemaPropsOrArray: schema=1 JSONSchemaProps, jSONSchemas=2 JSONSchemaProps*
JSONSchemaPropsOrBool: allows=1 bool, schema=2 JSONSchemaProps
JSONSchemaPropsOrStringArray: schema=1 JSONSchemaProps, property=2 string*
SelectableField: jsonPath=1 string
ServiceReference: namespace=1 string, name=2 string, path=3 string, port=4 int
ValidationRule: rule=1 string, message=2 string, messageExpression=3 string, reason=4 string,
    fieldPath=5 string, optionalOldSelf=6 bool
WebhookClientConfig: url=3 string, service=1 ServiceReference, caBundle=2 bytes
WebhookConversion: clientConfig=2 WebhookClientConfig, conversionReviewVersions=3 string*
package apiextensions.v1beta1
CustomResourceColumnDefinition: name=1 string, type=2 string, format=3 string, description=4 string,
    priority=5 int, JSONPath=6 string
CustomResourceConversion: strategy=1 string, webhookClientConfig=2 WebhookClientConfig,
    conversionReviewVersions=3 string*
CustomResourceDefinition: metadata=1 meta.v1.ObjectMeta, spec=2 CustomResourceDefinitionSpec,
    status=3 CustomResourceDefinitionStatus
CustomResourceDefinitionCondition: type=1 string, status=2 string, lastTransitionTime=3 meta.v1.Time,
    reason=4 string, message=5 string, observedGeneration=6 int
CustomResourceDefinitionNames: plural=1 string, singular=2 string, shortNames=3 string*, kind=4 string,
    listKind=5 string, categories=6 string*
CustomResourceDefinitionSpec: group=1 string, version=2 string, names=3 CustomResourceDefinitionNames,
    scope=4 string, validation=5 CustomResourceValidation, subresources=6 CustomResourceSubresources,
    versions=7 CustomResourceDefinitionVersion*, additionalPrinterColumns=8 CustomResourceColumnDefinition*,
    selectableFields=11 SelectableField*, conversion=9 CustomResourceConversion,
    preserveUnknownFields=10 bool
CustomResourceDefinitionStatus: conditions=1 CustomResourceDefinitionCondition*,
    acceptedNames=2 CustomResourceDefinitionNames, storedVersions=3 string*, observedGeneration=4 int
CustomResourceDefinitionVersion: name=1 string, served=2 bool, storage=3 bool, deprecated=7 bool,
    deprecationWarning=8 string, schema=4 CustomResourceValidation, subresources=5 CustomResourceSubresources,
    additionalPrinterColumns=6 CustomResourceColumnDefinition*, selectableFields=9 SelectableField*
CustomResourceSubresourceScale: specReplicasPath=1 string, statusReplicasPath=2 string,
    labelSelectorPath=3 string
CustomResourceSubresourceStatus:
CustomResourceSubresources: status=1 CustomResourceSubresourceStatus, scale=2 CustomResourceSubresourceScale
CustomResourceValidation: openAPIV3Schema=1 JSONSchemaProps
ExternalDocumentation: description=1 string, url=2 string
JSON: raw=1 bytes
JSONSchemaProps: id=1 string, schema=2 string, ref=3 string, description=4 string, type=5 string,
    format=6 string, title=7 string, default=8 JSON, maximum=9 double, exclusiveMaximum=10 bool,
    minimum=11 double, exclusiveMinimum=12 bool, maxLength=13 int, minLength=14 int, pattern=15 string,
    maxItems=16 int, minItems=17 int, uniqueItems=18 bool, multipleOf=19 double, enum=20 JSON*,
    maxProperties=21 int, minProperties=22 int, required=23 string*, items=24 JSONSchemaPropsOrArray,
    allOf=25 JSONSchemaProps*, oneOf=26 JSONSchemaProps*, anyOf=27 JSONSchemaProps*, not=28 JSONSchemaProps,
    properties=29 JSONSchemaProps{}, additionalProperties=30 JSONSchemaPropsOrBool,
    patternProperties=31 JSONSchemaProps{}, dependencies=32 JSONSchemaPropsOrStringArray{},
    additionalItems=33 JSONSchemaPropsOrBool, definitions=34 JSONSchemaProps{},
    externalDocs=35 ExternalDocumentation, example=36 JSON, nullable=37 bool,
    xKubernetesPreserveUnknownFields=38 bool, xKubernetesEmbeddedResource=39 bool,
    xKubernetesIntOrString=40 bool, xKubernetesListMapKeys=41 string*, xKubernetesListType=42 string,
    xKubernetesMapType=43 string, xKubernetesValidations=44 ValidationRule*
JSONSchemaPropsOrArray: schema=1 JSONSchemaProps, jSONSchemas=2 JSONSchemaProps*
JSONSchemaPropsOrBool: allows=1 bool, schema=2 JSONSchemaProps
JSONSchemaPropsOrStringArray: schema=1 JSONSchemaProps, property=2 string*
SelectableField: jsonPath=1 string
ServiceReference: namespace=1 string, name=2 string, path=3 string, port=4 int
ValidationRule: rule=1 string, message=2 string, messageExpression=3 string, reason=4 string,
    fieldPath=5 string, optionalOldSelf=6 bool
WebhookClientConfig: url=3 string, service=1 ServiceReference, caBundle=2 bytes
package apiregistration.v1
APIService: metadata=1 meta.v1.ObjectMeta, spec=2 APIServiceSpec, status=3 APIServiceStatus
APIServiceCondition: type=1 string, status=2 string, lastTransitionTime=3 meta.v1.Time, reason=4 string,
    message=5 string
APIServiceSpec: service=1 ServiceReference, group=2 string, version=3 string, insecureSkipTLSVerify=4 bool,
    caBundle=5 bytes, groupPriorityMinimum=7 int, versionPriority=8 int
APIServiceStatus: conditions=1 APIServiceCondition*
ServiceReference: namespace=1 string, name=2 string, port=3 int
package apps.v1
ControllerRevision: metadata=1 meta.v1.ObjectMeta, data=2 runtime.RawExtension, revision=3 int
DaemonSet: metadata=1 meta.v1.ObjectMeta, spec=2 DaemonSetSpec, status=3 DaemonSetStatus
DaemonSetCondition: type=1 string, status=2 string, lastTransitionTime=3 meta.v1.Time, reason=4 string,
    message=5 string
DaemonSetSpec: selector=1 meta.v1.LabelSelector, template=2 core.v1.PodTemplateSpec,
    updateStrategy=3 DaemonSetUpdateStrategy, minReadySeconds=4 int, revisionHistoryLimit=6 int
DaemonSetStatus: currentNumberScheduled=1 int, numberMisscheduled=2 int, desiredNumberScheduled=3 int,
    numberReady=4 int, observedGeneration=5 int, updatedNumberScheduled=6 int, numberAvailable=7 int,
    numberUnavailable=8 int, collisionCount=9 int, conditions=10 DaemonSetCondition*
DaemonSetUpdateStrategy: type=1 string, rollingUpdate=2 RollingUpdateDaemonSet
Deployment: metadata=1 meta.v1.ObjectMeta, spec=2 DeploymentSpec, status=3 DeploymentStatus
DeploymentCondition: type=1 string, status=2 string, lastUpdateTime=6 meta.v1.Time,
    lastTransitionTime=7 meta.v1.Time, reason=4 string, message=5 string
DeploymentSpec: replicas=1 int, selector=2 meta.v1.LabelSelector, template=3 core.v1.PodTemplateSpec,
    strategy=4 DeploymentStrategy, minReadySeconds=5 int, revisionHistoryLimit=6 int, paused=7 bool,
    progressDeadlineSeconds=9 int
DeploymentStatus: observedGeneration=1 int, replicas=2 int, updatedReplicas=3 int, readyReplicas=7 int,
    availableReplicas=4 int, unavailableReplicas=5 int, terminatingReplicas=9 int,
    conditions=6 DeploymentCondition*, collisionCount=8 int
DeploymentStrategy: type=1 string, rollingUpdate=2 RollingUpdateDeployment
ReplicaSet: metadata=1 meta.v1.ObjectMeta, spec=2 ReplicaSetSpec, status=3 ReplicaSetStatus
ReplicaSetCondition: type=1 string, status=2 string, lastTransitionTime=3 meta.v1.Time, reason=4 string,
    message=5 string
ReplicaSetSpec: replicas=1 int, minReadySeconds=4 int, selector=2 meta.v1.LabelSelector,
    template=3 core.v1.PodTemplateSpec
ReplicaSetStatus: replicas=1 int, fullyLabeledReplicas=2 int, readyReplicas=4 int, availableReplicas=5 int,
    terminatingReplicas=7 int, observedGeneration=3 int, conditions=6 ReplicaSetCondition*
RollingUpdateDaemonSet: maxUnavailable=1 intstr.IntOrString, maxSurge=2 intstr.IntOrString
RollingUpdateDeployment: maxUnavailable=1 intstr.IntOrString, maxSurge=2 intstr.IntOrString
RollingUpdateStatefulSetStrategy: partition=1 int, maxUnavailable=2 intstr.IntOrString
StatefulSet: metadata=1 meta.v1.ObjectMeta, spec=2 StatefulSetSpec, status=3 StatefulSetStatus
StatefulSetCondition: type=1 string, status=2 string, lastTransitionTime=3 meta.v1.Time, reason=4 string,
    message=5 string
StatefulSetOrdinals: start=1 int
StatefulSetPersistentVolumeClaimRetentionPolicy: whenDeleted=1 string, whenScaled=2 string
StatefulSetSpec: replicas=1 int, selector=2 meta.v1.LabelSelector, template=3 core.v1.PodTemplateSpec,
    volumeClaimTemplates=4 core.v1.PersistentVolumeClaim*, serviceName=5 string, podManagementPolicy=6 string,
    updateStrategy=7 StatefulSetUpdateStrategy, revisionHistoryLimit=8 int, minReadySeconds=9 int,
    persistentVolumeClaimRetentionPolicy=10 StatefulSetPersistentVolumeClaimRetentionPolicy,
    ordinals=11 StatefulSetOrdinals
StatefulSetStatus: observedGeneration=1 int, replicas=2 int, readyReplicas=3 int, currentReplicas=4 int,
    updatedReplicas=5 int, currentRevision=6 string, updateRevision=7 string, collisionCount=9 int,
    conditions=10 StatefulSetCondition*, availableReplicas=11 int
StatefulSetUpdateStrategy: type=1 string, rollingUpdate=2 RollingUpdateStatefulSetStrategy
package autoscaling.v1
CrossVersionObjectReference: kind=1 string, name=2 string, apiVersion=3 string
HorizontalPodAutoscaler: metadata=1 meta.v1.ObjectMeta, spec=2 HorizontalPodAutoscalerSpec,
    status=3 HorizontalPodAutoscalerStatus
HorizontalPodAutoscalerSpec: scaleTargetRef=1 CrossVersionObjectReference, minReplicas=2 int,
    maxReplicas=3 int, targetCPUUtilizationPercentage=4 int
HorizontalPodAutoscalerStatus: observedGeneration=1 int, lastScaleTime=2 meta.v1.Time, currentReplicas=3 int,
    desiredReplicas=4 int, currentCPUUtilizationPercentage=5 int
Scale: metadata=1 meta.v1.ObjectMeta, spec=2 ScaleSpec, status=3 ScaleStatus
ScaleSpec: replicas=1 int
ScaleStatus: replicas=1 int, selector=2 string
package autoscaling.v2
ContainerResourceMetricSource: name=1 string, target=2 MetricTarget, container=3 string
ContainerResourceMetricStatus: name=1 string, current=2 MetricValueStatus, container=3 string
CrossVersionObjectReference: kind=1 string, name=2 string, apiVersion=3 string
ExternalMetricSource: metric=1 MetricIdentifier, target=2 MetricTarget
ExternalMetricStatus: metric=1 MetricIdentifier, current=2 MetricValueStatus
HPAScalingPolicy: type=1 string, value=2 int, periodSeconds=3 int
HPAScalingRules: stabilizationWindowSeconds=3 int, selectPolicy=1 string, policies=2 HPAScalingPolicy*,
    tolerance=4 resource.Quantity
HorizontalPodAutoscaler: metadata=1 meta.v1.ObjectMeta, spec=2 HorizontalPodAutoscalerSpec,
    status=3 HorizontalPodAutoscalerStatus
HorizontalPodAutoscalerBehavior: scaleUp=1 HPAScalingRules, scaleDown=2 HPAScalingRules
HorizontalPodAutoscalerCondition: type=1 string, status=2 string, lastTransitionTime=3 meta.v1.Time,
    reason=4 string, message=5 string, observedGeneration=6 int
HorizontalPodAutoscalerSpec: scaleTargetRef=1 CrossVersionObjectReference, minReplicas=2 int,
    maxReplicas=3 int, metrics=4 MetricSpec*, behavior=5 HorizontalPodAutoscalerBehavior
HorizontalPodAutoscalerStatus: observedGeneration=1 int, lastScaleTime=2 meta.v1.Time, currentReplicas=3 int,
    desiredReplicas=4 int, currentMetrics=5 MetricStatus*, conditions=6 HorizontalPodAutoscalerCondition*
MetricIdentifier: name=1 string, selector=2 meta.v1.LabelSelector
MetricSpec: type=1 string, object=2 ObjectMetricSource, pods=3 PodsMetricSource,
    resource=4 ResourceMetricSource, containerResource=7 ContainerResourceMetricSource,
    external=5 ExternalMetricSource
MetricStatus: type=1 string, object=2 ObjectMetricStatus, pods=3 PodsMetricStatus,
    resource=4 ResourceMetricStatus, containerResource=7 ContainerResourceMetricStatus,
    external=5 ExternalMetricStatus
MetricTarget: type=1 string, value=2 resource.Quantity, averageValue=3 resource.Quantity,
    averageUtilization=4 int
MetricValueStatus: value=1 resource.Quantity, averageValue=2 resource.Quantity, averageUtilization=3 int
ObjectMetricSource: describedObject=1 CrossVersionObjectReference, target=2 MetricTarget,
    metric=3 MetricIdentifier
ObjectMetricStatus: metric=1 MetricIdentifier, current=2 MetricValueStatus,
    describedObject=3 CrossVersionObjectReference
PodsMetricSource: metric=1 MetricIdentifier, target=2 MetricTarget
PodsMetricStatus: metric=1 MetricIdentifier, current=2 MetricValueStatus
ResourceMetricSource: name=1 string, target=2 MetricTarget
ResourceMetricStatus: name=1 string, current=2 MetricValueStatus
package batch.v1
CronJob: metadata=1 meta.v1.ObjectMeta, spec=2 CronJobSpec, status=3 CronJobStatus
CronJobSpec: schedule=1 string, timeZone=8 string, startingDeadlineSeconds=2 int, concurrencyPolicy=3 string,
    suspend=4 bool, jobTemplate=5 JobTemplateSpec, successfulJobsHistoryLimit=6 int,
    failedJobsHistoryLimit=7 int
CronJobStatus: active=1 core.v1.ObjectReference*, lastScheduleTime=4 meta.v1.Time,
    lastSuccessfulTime=5 meta.v1.Time
Job: metadata=1 meta.v1.ObjectMeta, spec=2 JobSpec, status=3 JobStatus
JobCondition: type=1 string, status=2 string, lastProbeTime=3 meta.v1.Time, lastTransitionTime=4 meta.v1.Time,
    reason=5 string, message=6 string
JobSchedulingConfiguration: schedulingPolicy=1 scheduling.v1alpha3.WorkloadPodGroupSchedulingPolicy,
    schedulingConstraints=2 scheduling.v1alpha3.WorkloadPodGroupSchedulingConstraints,
    disruptionMode=3 scheduling.v1alpha3.WorkloadPodGroupDisruptionMode,
    resourceClaims=4 scheduling.v1alpha3.WorkloadPodGroupResourceClaim*
JobSpec: parallelism=1 int, completions=2 int, activeDeadlineSeconds=3 int,
    podFailurePolicy=11 PodFailurePolicy, successPolicy=16 SuccessPolicy, backoffLimit=7 int,
    backoffLimitPerIndex=12 int, maxFailedIndexes=13 int, selector=4 meta.v1.LabelSelector,
    manualSelector=5 bool, template=6 core.v1.PodTemplateSpec, ttlSecondsAfterFinished=8 int,
    completionMode=9 string, suspend=10 bool, podReplacementPolicy=14 string, managedBy=15 string,
    scheduling=17 JobSchedulingConfiguration
JobStatus: conditions=1 JobCondition*, startTime=2 meta.v1.Time, completionTime=3 meta.v1.Time, active=4 int,
    succeeded=5 int, failed=6 int, terminating=11 int, completedIndexes=7 string, failedIndexes=10 string,
    uncountedTerminatedPods=8 UncountedTerminatedPods, ready=9 int
JobTemplateSpec: metadata=1 meta.v1.ObjectMeta, spec=2 JobSpec
PodFailurePolicy: rules=1 PodFailurePolicyRule*
PodFailurePolicyOnExitCodesRequirement: containerName=1 string, operator=2 string, values=3 int*
PodFailurePolicyOnPodConditionsPattern: type=1 string, status=2 string
PodFailurePolicyRule: action=1 string, onExitCodes=2 PodFailurePolicyOnExitCodesRequirement,
    onPodConditions=3 PodFailurePolicyOnPodConditionsPattern*
SuccessPolicy: rules=1 SuccessPolicyRule*
SuccessPolicyRule: succeededIndexes=1 string, succeededCount=2 int
UncountedTerminatedPods: succeeded=1 string*, failed=2 string*
package batch.v1beta1
CronJob: metadata=1 meta.v1.ObjectMeta, spec=2 CronJobSpec, status=3 CronJobStatus
CronJobSpec: schedule=1 string, timeZone=8 string, startingDeadlineSeconds=2 int, concurrencyPolicy=3 string,
    suspend=4 bool, jobTemplate=5 JobTemplateSpec, successfulJobsHistoryLimit=6 int,
    failedJobsHistoryLimit=7 int
CronJobStatus: active=1 core.v1.ObjectReference*, lastScheduleTime=4 meta.v1.Time,
    lastSuccessfulTime=5 meta.v1.Time
JobTemplateSpec: metadata=1 meta.v1.ObjectMeta, spec=2 batch.v1.JobSpec
package certificates.v1
CertificateSigningRequest: metadata=1 meta.v1.ObjectMeta, spec=2 CertificateSigningRequestSpec,
    status=3 CertificateSigningRequestStatus
CertificateSigningRequestCondition: type=1 string, status=6 string, reason=2 string, message=3 string,
    lastUpdateTime=4 meta.v1.Time, lastTransitionTime=5 meta.v1.Time
CertificateSigningRequestSpec: request=1 bytes, signerName=7 string, expirationSeconds=8 int,
    usages=5 string*, username=2 string, uid=3 string, groups=4 string*, extra=6 ExtraValue{}
CertificateSigningRequestStatus: conditions=1 CertificateSigningRequestCondition*, certificate=2 bytes
ClusterTrustBundle: metadata=1 meta.v1.ObjectMeta, spec=2 ClusterTrustBundleSpec
ClusterTrustBundleSpec: signerName=1 string, trustBundle=2 string
ExtraValue: items=1 string*
PodCertificateRequest: metadata=1 meta.v1.ObjectMeta, spec=2 PodCertificateRequestSpec,
    status=3 PodCertificateRequestStatus
PodCertificateRequestSpec: signerName=1 string, podName=2 string, podUID=3 string,
    serviceAccountName=4 string, serviceAccountUID=5 string, nodeName=6 string, nodeUID=7 string,
    maxExpirationSeconds=8 int, stubPKCS10Request=12 bytes, unverifiedUserAnnotations=11 string{}
PodCertificateRequestStatus: conditions=1 meta.v1.Condition*, certificateChain=2 string,
    notBefore=4 meta.v1.Time, beginRefreshAt=5 meta.v1.Time, notAfter=6 meta.v1.Time
package certificates.v1beta1
CertificateSigningRequest: metadata=1 meta.v1.ObjectMeta, spec=2 CertificateSigningRequestSpec,
    status=3 CertificateSigningRequestStatus
CertificateSigningRequestCondition: type=1 string, status=6 string, reason=2 string, message=3 string,
    lastUpdateTime=4 meta.v1.Time, lastTransitionTime=5 meta.v1.Time
CertificateSigningRequestSpec: request=1 bytes, signerName=7 string, expirationSeconds=8 int,
    usages=5 string*, username=2 string, uid=3 string, groups=4 string*, extra=6 ExtraValue{}
CertificateSigningRequestStatus: conditions=1 CertificateSigningRequestCondition*, certificate=2 bytes
ClusterTrustBundle: metadata=1 meta.v1.ObjectMeta, spec=2 ClusterTrustBundleSpec
ClusterTrustBundleSpec: signerName=1 string, trustBundle=2 string
ExtraValue: items=1 string*
PodCertificateRequest: metadata=1 meta.v1.ObjectMeta, spec=2 PodCertificateRequestSpec,
    status=3 PodCertificateRequestStatus
PodCertificateRequestSpec: signerName=1 string, podName=2 string, podUID=3 string,
    serviceAccountName=4 string, serviceAccountUID=5 string, nodeName=6 string, nodeUID=7 string,
    maxExpirationSeconds=8 int, pkixPublicKey=9 bytes, proofOfPossession=10 bytes, stubPKCS10Request=12 bytes,
    unverifiedUserAnnotations=11 string{}
PodCertificateRequestStatus: conditions=1 meta.v1.Condition*, certificateChain=2 string,
    notBefore=4 meta.v1.Time, beginRefreshAt=5 meta.v1.Time, notAfter=6 meta.v1.Time
package coordination.v1
Lease: metadata=1 meta.v1.ObjectMeta, spec=2 LeaseSpec
LeaseSpec: holderIdentity=1 string, leaseDurationSeconds=2 int, acquireTime=3 meta.v1.MicroTime,
    renewTime=4 meta.v1.MicroTime, leaseTransitions=5 int, strategy=6 string, preferredHolder=7 string
package coordination.v1beta1
Lease: metadata=1 meta.v1.ObjectMeta, spec=2 LeaseSpec
LeaseCandidate: metadata=1 meta.v1.ObjectMeta, spec=2 LeaseCandidateSpec
LeaseCandidateSpec: leaseName=1 string, pingTime=2 meta.v1.MicroTime, renewTime=3 meta.v1.MicroTime,
    binaryVersion=4 string, emulationVersion=5 string, strategy=6 string
LeaseSpec: holderIdentity=1 string, leaseDurationSeconds=2 int, acquireTime=3 meta.v1.MicroTime,
    renewTime=4 meta.v1.MicroTime, leaseTransitions=5 int, strategy=6 string, preferredHolder=7 string
package core.v1
AWSElasticBlockStoreVolumeSource: volumeID=1 string, fsType=2 string, partition=3 int, readOnly=4 bool
Affinity: nodeAffinity=1 NodeAffinity, podAffinity=2 PodAffinity, podAntiAffinity=3 PodAntiAffinity
AppArmorProfile: type=1 string, localhostProfile=2 string
AttachedVolume: name=1 string, devicePath=2 string
AzureDiskVolumeSource: diskName=1 string, diskURI=2 string, cachingMode=3 string, fsType=4 string,
    readOnly=5 bool, kind=6 string
AzureFilePersistentVolumeSource: secretName=1 string, shareName=2 string, readOnly=3 bool,
    secretNamespace=4 string
AzureFileVolumeSource: secretName=1 string, shareName=2 string, readOnly=3 bool
CSIPersistentVolumeSource: driver=1 string, volumeHandle=2 string, readOnly=3 bool, fsType=4 string,
    volumeAttributes=5 string{}, controllerPublishSecretRef=6 SecretReference,
    nodeStageSecretRef=7 SecretReference, nodePublishSecretRef=8 SecretReference,
    controllerExpandSecretRef=9 SecretReference, nodeExpandSecretRef=10 SecretReference
CSIVolumeSource: driver=1 string, readOnly=2 bool, fsType=3 string, volumeAttributes=4 string{},
    nodePublishSecretRef=5 LocalObjectReference
Capabilities: add=1 string*, drop=2 string*
CephFSPersistentVolumeSource: monitors=1 string*, path=2 string, user=3 string, secretFile=4 string,
    secretRef=5 SecretReference, readOnly=6 bool
CephFSVolumeSource: monitors=1 string*, path=2 string, user=3 string, secretFile=4 string,
    secretRef=5 LocalObjectReference, readOnly=6 bool
CinderPersistentVolumeSource: volumeID=1 string, fsType=2 string, readOnly=3 bool,
    secretRef=4 SecretReference
CinderVolumeSource: volumeID=1 string, fsType=2 string, readOnly=3 bool, secretRef=4 LocalObjectReference
ClientIPConfig: timeoutSeconds=1 int
ClusterTrustBundleProjection: name=1 string, signerName=2 string, labelSelector=3 meta.v1.LabelSelector,
    optional=5 bool, path=4 string, user=6 int
ComponentCondition: type=1 string, status=2 string, message=3 string, error=4 string
ComponentStatus: metadata=1 meta.v1.ObjectMeta, conditions=2 ComponentCondition*
ConfigMap: metadata=1 meta.v1.ObjectMeta, immutable=4 bool, data=2 string{}, binaryData=3 bytes{}
ConfigMapEnvSource: localObjectReference=1 LocalObjectReference<, optional=2 bool
ConfigMapKeySelector: localObjectReference=1 LocalObjectReference<, key=2 string, optional=3 bool
ConfigMapNodeConfigSource: namespace=1 string, name=2 string, uid=3 string, resourceVersion=4 string,
    kubeletConfigKey=5 string
ConfigMapProjection: localObjectReference=1 LocalObjectReference<, items=2 KeyToPath*, optional=4 bool
ConfigMapVolumeSource: localObjectReference=1 LocalObjectReference<, items=2 KeyToPath*, defaultMode=3 int,
    optional=4 bool, defaultUser=5 int
Container: name=1 string, image=2 string, command=3 string*, args=4 string*, workingDir=5 string,
    ports=6 ContainerPort*, envFrom=19 EnvFromSource*, env=7 EnvVar*, resources=8 ResourceRequirements,
    resizePolicy=23 ContainerResizePolicy*, restartPolicy=24 string,
    restartPolicyRules=25 ContainerRestartRule*, volumeMounts=9 VolumeMount*, volumeDevices=21 VolumeDevice*,
    livenessProbe=10 Probe, readinessProbe=11 Probe, startupProbe=22 Probe, lifecycle=12 Lifecycle,
    terminationMessagePath=13 string, terminationMessagePolicy=20 string, imagePullPolicy=14 string,
    securityContext=15 SecurityContext, stdin=16 bool, stdinOnce=17 bool, tty=18 bool
ContainerExtendedResourceRequest: containerName=1 string, resourceName=2 string, requestName=3 string
ContainerImage: names=1 string*, sizeBytes=2 int
ContainerPort: name=1 string, hostPort=2 int, containerPort=3 int, protocol=4 string, hostIP=5 string
ContainerResizePolicy: resourceName=1 string, restartPolicy=2 string
ContainerRestartRule: action=1 string, exitCodes=2 ContainerRestartRuleOnExitCodes
ContainerRestartRuleOnExitCodes: operator=1 string, values=2 int*
ContainerState: waiting=1 ContainerStateWaiting, running=2 ContainerStateRunning,
    terminated=3 ContainerStateTerminated
ContainerStateRunning: startedAt=1 meta.v1.Time
ContainerStateTerminated: exitCode=1 int, signal=2 int, reason=3 string, message=4 string,
    startedAt=5 meta.v1.Time, finishedAt=6 meta.v1.Time, containerID=7 string
ContainerStateWaiting: reason=1 string, message=2 string
ContainerStatus: name=1 string, state=2 ContainerState, lastState=3 ContainerState, ready=4 bool,
    restartCount=5 int, image=6 string, imageID=7 string, containerID=8 string, started=9 bool,
    allocatedResources=10 resource.Quantity{}, resources=11 ResourceRequirements,
    volumeMounts=12 VolumeMountStatus*, user=13 ContainerUser, allocatedResourcesStatus=14 ResourceStatus*,
    stopSignal=15 string
ContainerUser: linux=1 LinuxContainerUser
DaemonEndpoint: Port=1 int
DownwardAPIProjection: items=1 DownwardAPIVolumeFile*
DownwardAPIVolumeFile: path=1 string, fieldRef=2 ObjectFieldSelector,
    resourceFieldRef=3 ResourceFieldSelector, mode=4 int, user=5 int
DownwardAPIVolumeSource: items=1 DownwardAPIVolumeFile*, defaultMode=2 int, defaultUser=3 int
EmptyDirVolumeSource: medium=1 string, sizeLimit=2 resource.Quantity, mode=3 int
EndpointAddress: ip=1 string, hostname=3 string, nodeName=4 string, targetRef=2 ObjectReference
EndpointPort: name=1 string, port=2 int, protocol=3 string, appProtocol=4 string
EndpointSubset: addresses=1 EndpointAddress*, notReadyAddresses=2 EndpointAddress*, ports=3 EndpointPort*
Endpoints: metadata=1 meta.v1.ObjectMeta, subsets=2 EndpointSubset*
EnvFromSource: prefix=1 string, configMapRef=2 ConfigMapEnvSource, secretRef=3 SecretEnvSource
EnvVar: name=1 string, value=2 string, valueFrom=3 EnvVarSource
EnvVarSource: fieldRef=1 ObjectFieldSelector, resourceFieldRef=2 ResourceFieldSelector,
    configMapKeyRef=3 ConfigMapKeySelector, secretKeyRef=4 SecretKeySelector, fileKeyRef=5 FileKeySelector
EphemeralContainer: ephemeralContainerCommon=1 EphemeralContainerCommon, targetContainerName=2 string
EphemeralContainerCommon: name=1 string, image=2 string, command=3 string*, args=4 string*,
    workingDir=5 string, ports=6 ContainerPort*, envFrom=19 EnvFromSource*, env=7 EnvVar*,
    resources=8 ResourceRequirements, resizePolicy=23 ContainerResizePolicy*, restartPolicy=24 string,
    restartPolicyRules=25 ContainerRestartRule*, volumeMounts=9 VolumeMount*, volumeDevices=21 VolumeDevice*,
    livenessProbe=10 Probe, readinessProbe=11 Probe, startupProbe=22 Probe, lifecycle=12 Lifecycle,
    terminationMessagePath=13 string, terminationMessagePolicy=20 string, imagePullPolicy=14 string,
    securityContext=15 SecurityContext, stdin=16 bool, stdinOnce=17 bool, tty=18 bool
EphemeralVolumeSource: volumeClaimTemplate=1 PersistentVolumeClaimTemplate
Event: metadata=1 meta.v1.ObjectMeta, involvedObject=2 ObjectReference, reason=3 string, message=4 string,
    source=5 EventSource, firstTimestamp=6 meta.v1.Time, lastTimestamp=7 meta.v1.Time, count=8 int,
    type=9 string, eventTime=10 meta.v1.MicroTime, series=11 EventSeries, action=12 string,
    related=13 ObjectReference, reportingComponent=14 string, reportingInstance=15 string
EventSeries: count=1 int, lastObservedTime=2 meta.v1.MicroTime
EventSource: component=1 string, host=2 string
EvictionResponder: name=1 string, priority=2 int
ExecAction: command=1 string*
FCVolumeSource: targetWWNs=1 string*, lun=2 int, fsType=3 string, readOnly=4 bool, wwids=5 string*
FileKeySelector: volumeName=1 string, path=2 string, key=3 string, optional=4 bool
FlexPersistentVolumeSource: driver=1 string, fsType=2 string, secretRef=3 SecretReference, readOnly=4 bool,
    options=5 string{}
FlexVolumeSource: driver=1 string, fsType=2 string, secretRef=3 LocalObjectReference, readOnly=4 bool,
    options=5 string{}
FlockerVolumeSource: datasetName=1 string, datasetUUID=2 string
GCEPersistentDiskVolumeSource: pdName=1 string, fsType=2 string, partition=3 int, readOnly=4 bool
GRPCAction: port=1 int, service=2 string, mode=3 string
GitRepoVolumeSource: repository=1 string, revision=2 string, directory=3 string
GlusterfsPersistentVolumeSource: endpoints=1 string, path=2 string, readOnly=3 bool,
    endpointsNamespace=4 string
GlusterfsVolumeSource: endpoints=1 string, path=2 string, readOnly=3 bool
HTTPGetAction: path=1 string, port=2 intstr.IntOrString, host=3 string, scheme=4 string,
    httpHeaders=5 HTTPHeader*, protocol=6 string
HTTPHeader: name=1 string, value=2 string
HostAlias: ip=1 string, hostnames=2 string*
HostIP: ip=1 string
HostPathVolumeSource: path=1 string, type=2 string
ISCSIPersistentVolumeSource: targetPortal=1 string, iqn=2 string, lun=3 int, iscsiInterface=4 string,
    fsType=5 string, readOnly=6 bool, portals=7 string*, chapAuthDiscovery=8 bool, chapAuthSession=11 bool,
    secretRef=10 SecretReference, initiatorName=12 string
ISCSIVolumeSource: targetPortal=1 string, iqn=2 string, lun=3 int, iscsiInterface=4 string, fsType=5 string,
    readOnly=6 bool, portals=7 string*, chapAuthDiscovery=8 bool, chapAuthSession=11 bool,
    secretRef=10 LocalObjectReference, initiatorName=12 string
ImageVolumeSource: reference=1 string, pullPolicy=2 string
ImageVolumeStatus: imageRef=1 string
KeyToPath: key=1 string, path=2 string, mode=3 int, user=4 int
Lifecycle: postStart=1 LifecycleHandler, preStop=2 LifecycleHandler, stopSignal=3 string
LifecycleHandler: exec=1 ExecAction, httpGet=2 HTTPGetAction, tcpSocket=3 TCPSocketAction,
    sleep=4 SleepAction
LimitRange: metadata=1 meta.v1.ObjectMeta, spec=2 LimitRangeSpec
LimitRangeItem: type=1 string, max=2 resource.Quantity{}, min=3 resource.Quantity{},
    default=4 resource.Quantity{}, defaultRequest=5 resource.Quantity{},
    maxLimitRequestRatio=6 resource.Quantity{}
LimitRangeSpec: limits=1 LimitRangeItem*
LinuxContainerUser: uid=1 int, gid=2 int, supplementalGroups=3 int*
LoadBalancerIngress: ip=1 string, hostname=2 string, ipMode=3 string, ports=4 PortStatus*
LoadBalancerStatus: ingress=1 LoadBalancerIngress*
LocalObjectReference: name=1 string
LocalVolumeSource: path=1 string, fsType=2 string
ModifyVolumeStatus: targetVolumeAttributesClassName=1 string, status=2 string
NFSVolumeSource: server=1 string, path=2 string, readOnly=3 bool
Namespace: metadata=1 meta.v1.ObjectMeta, spec=2 NamespaceSpec, status=3 NamespaceStatus
NamespaceCondition: type=1 string, status=2 string, lastTransitionTime=4 meta.v1.Time, reason=5 string,
    message=6 string
NamespaceSpec: finalizers=1 string*
NamespaceStatus: phase=1 string, conditions=2 NamespaceCondition*
Node: metadata=1 meta.v1.ObjectMeta, spec=2 NodeSpec, status=3 NodeStatus
NodeAddress: type=1 string, address=2 string
NodeAffinity: requiredDuringSchedulingIgnoredDuringExecution=1 NodeSelector,
    preferredDuringSchedulingIgnoredDuringExecution=2 PreferredSchedulingTerm*
NodeAllocatableMappedResources: name=1 string, quantity=2 resource.Quantity
NodeAllocatableOverheadResources: name=1 string, perPod=2 resource.Quantity, perContainer=3 resource.Quantity
NodeAllocatableResourceClaimStatus: resourceClaimName=1 string, containers=2 string*,
    mapping=4 NodeAllocatableMappedResources*, overhead=5 NodeAllocatableOverheadResources*
NodeCondition: type=1 string, status=2 string, lastHeartbeatTime=3 meta.v1.Time,
    lastTransitionTime=4 meta.v1.Time, reason=5 string, message=6 string
NodeConfigSource: configMap=2 ConfigMapNodeConfigSource
NodeConfigStatus: assigned=1 NodeConfigSource, active=2 NodeConfigSource, lastKnownGood=3 NodeConfigSource,
    error=4 string
NodeDaemonEndpoints: kubeletEndpoint=1 DaemonEndpoint
NodeFeatures: supplementalGroupsPolicy=1 bool
NodePodPreemptionPolicy: disableResizePreemption=1 string*
NodeRuntimeHandler: name=1 string, features=2 NodeRuntimeHandlerFeatures
NodeRuntimeHandlerFeatures: recursiveReadOnlyMounts=1 bool, userNamespaces=2 bool
NodeSelector: nodeSelectorTerms=1 NodeSelectorTerm*
NodeSelectorRequirement: key=1 string, operator=2 string, values=3 string*
NodeSelectorTerm: matchExpressions=1 NodeSelectorRequirement*, matchFields=2 NodeSelectorRequirement*
NodeSpec: podCIDR=1 string, podCIDRs=7 string*, providerID=3 string, unschedulable=4 bool, taints=5 Taint*,
    configSource=6 NodeConfigSource, externalID=2 string, podPreemptionPolicy=8 NodePodPreemptionPolicy
NodeStatus: capacity=1 resource.Quantity{}, allocatable=2 resource.Quantity{}, phase=3 string,
    conditions=4 NodeCondition*, addresses=5 NodeAddress*, daemonEndpoints=6 NodeDaemonEndpoints,
    nodeInfo=7 NodeSystemInfo, images=8 ContainerImage*, volumesInUse=9 string*,
    volumesAttached=10 AttachedVolume*, config=11 NodeConfigStatus, runtimeHandlers=12 NodeRuntimeHandler*,
    features=13 NodeFeatures, declaredFeatures=14 string*
NodeSwapStatus: capacity=1 int
NodeSystemInfo: machineID=1 string, systemUUID=2 string, bootID=3 string, kernelVersion=4 string,
    osImage=5 string, containerRuntimeVersion=6 string, kubeletVersion=7 string, kubeProxyVersion=8 string,
    operatingSystem=9 string, architecture=10 string, swap=11 NodeSwapStatus
ObjectFieldSelector: apiVersion=1 string, fieldPath=2 string
ObjectReference: kind=1 string, namespace=2 string, name=3 string, uid=4 string, apiVersion=5 string,
    resourceVersion=6 string, fieldPath=7 string
PersistentVolume: metadata=1 meta.v1.ObjectMeta, spec=2 PersistentVolumeSpec, status=3 PersistentVolumeStatus
PersistentVolumeClaim: metadata=1 meta.v1.ObjectMeta, spec=2 PersistentVolumeClaimSpec,
    status=3 PersistentVolumeClaimStatus
PersistentVolumeClaimCondition: type=1 string, status=2 string, lastProbeTime=3 meta.v1.Time,
    lastTransitionTime=4 meta.v1.Time, reason=5 string, message=6 string
PersistentVolumeClaimSpec: accessModes=1 string*, selector=4 meta.v1.LabelSelector,
    resources=2 VolumeResourceRequirements, volumeName=3 string, storageClassName=5 string,
    volumeMode=6 string, dataSource=7 TypedLocalObjectReference, dataSourceRef=8 TypedObjectReference,
    volumeAttributesClassName=9 string
PersistentVolumeClaimStatus: phase=1 string, accessModes=2 string*, capacity=3 resource.Quantity{},
    conditions=4 PersistentVolumeClaimCondition*, allocatedResources=5 resource.Quantity{},
    allocatedResourceStatuses=7 string{}, currentVolumeAttributesClassName=8 string,
    modifyVolumeStatus=9 ModifyVolumeStatus, healthStatus=10 VolumeHealthStatus
PersistentVolumeClaimTemplate: metadata=1 meta.v1.ObjectMeta, spec=2 PersistentVolumeClaimSpec
PersistentVolumeClaimVolumeSource: claimName=1 string, readOnly=2 bool
PersistentVolumeSource: gcePersistentDisk=1 GCEPersistentDiskVolumeSource,
    awsElasticBlockStore=2 AWSElasticBlockStoreVolumeSource, hostPath=3 HostPathVolumeSource,
    glusterfs=4 GlusterfsPersistentVolumeSource, nfs=5 NFSVolumeSource, rbd=6 RBDPersistentVolumeSource,
    iscsi=7 ISCSIPersistentVolumeSource, cinder=8 CinderPersistentVolumeSource,
    cephfs=9 CephFSPersistentVolumeSource, fc=10 FCVolumeSource, flocker=11 FlockerVolumeSource,
    flexVolume=12 FlexPersistentVolumeSource, azureFile=13 AzureFilePersistentVolumeSource,
    vsphereVolume=14 VsphereVirtualDiskVolumeSource, quobyte=15 QuobyteVolumeSource,
    azureDisk=16 AzureDiskVolumeSource, photonPersistentDisk=17 PhotonPersistentDiskVolumeSource,
    portworxVolume=18 PortworxVolumeSource, scaleIO=19 ScaleIOPersistentVolumeSource,
    local=20 LocalVolumeSource, storageos=21 StorageOSPersistentVolumeSource,
    csi=22 CSIPersistentVolumeSource
PersistentVolumeSpec: capacity=1 resource.Quantity{}, persistentVolumeSource=2 PersistentVolumeSource<,
    accessModes=3 string*, claimRef=4 ObjectReference, persistentVolumeReclaimPolicy=5 string,
    storageClassName=6 string, mountOptions=7 string*, volumeMode=8 string, nodeAffinity=9 VolumeNodeAffinity,
    volumeAttributesClassName=10 string
PersistentVolumeStatus: phase=1 string, message=2 string, reason=3 string,
    lastPhaseTransitionTime=4 meta.v1.Time
PhotonPersistentDiskVolumeSource: pdID=1 string, fsType=2 string
Pod: metadata=1 meta.v1.ObjectMeta, spec=2 PodSpec, status=3 PodStatus
PodAffinity: requiredDuringSchedulingIgnoredDuringExecution=1 PodAffinityTerm*,
    preferredDuringSchedulingIgnoredDuringExecution=2 WeightedPodAffinityTerm*
PodAffinityTerm: labelSelector=1 meta.v1.LabelSelector, namespaces=2 string*, topologyKey=3 string,
    namespaceSelector=4 meta.v1.LabelSelector, matchLabelKeys=5 string*, mismatchLabelKeys=6 string*
PodAntiAffinity: requiredDuringSchedulingIgnoredDuringExecution=1 PodAffinityTerm*,
    preferredDuringSchedulingIgnoredDuringExecution=2 WeightedPodAffinityTerm*
PodCertificateProjection: signerName=1 string, keyType=2 string, maxExpirationSeconds=3 int,
    credentialBundlePath=4 string, keyPath=5 string, certificateChainPath=6 string,
    userAnnotations=7 string{}, user=8 int
PodCondition: type=1 string, observedGeneration=7 int, status=2 string, lastProbeTime=3 meta.v1.Time,
    lastTransitionTime=4 meta.v1.Time, reason=5 string, message=6 string
PodDNSConfig: nameservers=1 string*, searches=2 string*, options=3 PodDNSConfigOption*
PodDNSConfigOption: name=1 string, value=2 string
PodExtendedResourceClaimStatus: requestMappings=1 ContainerExtendedResourceRequest*,
    resourceClaimName=2 string
PodIP: ip=1 string
PodOS: name=1 string
PodReadinessGate: conditionType=1 string
PodResourceClaim: name=1 string, resourceClaimName=3 string, resourceClaimTemplateName=4 string
PodResourceClaimStatus: name=1 string, resourceClaimName=2 string
PodSchedulingGate: name=1 string
PodSchedulingGroup: podGroupName=1 string
PodSecurityContext: seLinuxOptions=1 SELinuxOptions, windowsOptions=8 WindowsSecurityContextOptions,
    runAsUser=2 int, runAsGroup=6 int, runAsNonRoot=3 bool, supplementalGroups=4 int*,
    supplementalGroupsPolicy=12 string, fsGroup=5 int, sysctls=7 Sysctl*, fsGroupChangePolicy=9 string,
    seccompProfile=10 SeccompProfile, appArmorProfile=11 AppArmorProfile, seLinuxChangePolicy=13 string
PodSpec: volumes=1 Volume*, initContainers=20 Container*, containers=2 Container*,
    ephemeralContainers=34 EphemeralContainer*, restartPolicy=3 string, terminationGracePeriodSeconds=4 int,
    activeDeadlineSeconds=5 int, dnsPolicy=6 string, nodeSelector=7 string{}, serviceAccountName=8 string,
    serviceAccount=9 string, automountServiceAccountToken=21 bool, nodeName=10 string, hostNetwork=11 bool,
    hostPID=12 bool, hostIPC=13 bool, shareProcessNamespace=27 bool, securityContext=14 PodSecurityContext,
    imagePullSecrets=15 LocalObjectReference*, hostname=16 string, subdomain=17 string, affinity=18 Affinity,
    schedulerName=19 string, tolerations=22 Toleration*, hostAliases=23 HostAlias*,
    priorityClassName=24 string, priority=25 int, dnsConfig=26 PodDNSConfig,
    readinessGates=28 PodReadinessGate*, runtimeClassName=29 string, enableServiceLinks=30 bool,
    preemptionPolicy=31 string, overhead=32 resource.Quantity{},
    topologySpreadConstraints=33 TopologySpreadConstraint*, setHostnameAsFQDN=35 bool, os=36 PodOS,
    hostUsers=37 bool, schedulingGates=38 PodSchedulingGate*, resourceClaims=39 PodResourceClaim*,
    resources=40 ResourceRequirements, hostnameOverride=41 string, schedulingGroup=43 PodSchedulingGroup,
    evictionResponders=44 EvictionResponder*
PodStatus: observedGeneration=17 int, phase=1 string, conditions=2 PodCondition*, message=3 string,
    reason=4 string, nominatedNodeName=11 string, hostIP=5 string, hostIPs=16 HostIP*, podIP=6 string,
    podIPs=12 PodIP*, startTime=7 meta.v1.Time, initContainerStatuses=10 ContainerStatus*,
    containerStatuses=8 ContainerStatus*, qosClass=9 string, ephemeralContainerStatuses=13 ContainerStatus*,
    resize=14 string, resourceClaimStatuses=15 PodResourceClaimStatus*,
    extendedResourceClaimStatus=18 PodExtendedResourceClaimStatus, allocatedResources=19 resource.Quantity{},
    resources=20 ResourceRequirements,
    nodeAllocatableResourceClaimStatuses=21 NodeAllocatableResourceClaimStatus*,
    volumeHealth=22 PodVolumeHealth*
PodTemplate: metadata=1 meta.v1.ObjectMeta, template=2 PodTemplateSpec
PodTemplateSpec: metadata=1 meta.v1.ObjectMeta, spec=2 PodSpec
PodVolumeHealth: name=1 string, healthConditions=2 VolumeHealthCondition*, lastTransitionTime=3 meta.v1.Time
PortStatus: port=1 int, protocol=2 string, error=3 string
PortworxVolumeSource: volumeID=1 string, fsType=2 string, readOnly=3 bool
PreferredSchedulingTerm: weight=1 int, preference=2 NodeSelectorTerm
Probe: handler=1 ProbeHandler<, initialDelaySeconds=2 int, timeoutSeconds=3 int, periodSeconds=4 int,
    successThreshold=5 int, failureThreshold=6 int, terminationGracePeriodSeconds=7 int
ProbeHandler: exec=1 ExecAction, httpGet=2 HTTPGetAction, tcpSocket=3 TCPSocketAction, grpc=4 GRPCAction
ProjectedVolumeSource: sources=1 VolumeProjection*, defaultMode=2 int, defaultUser=3 int
QuobyteVolumeSource: registry=1 string, volume=2 string, readOnly=3 bool, user=4 string, group=5 string,
    tenant=6 string
RBDPersistentVolumeSource: monitors=1 string*, image=2 string, fsType=3 string, pool=4 string, user=5 string,
    keyring=6 string, secretRef=7 SecretReference, readOnly=8 bool
RBDVolumeSource: monitors=1 string*, image=2 string, fsType=3 string, pool=4 string, user=5 string,
    keyring=6 string, secretRef=7 LocalObjectReference, readOnly=8 bool
RangeAllocation: metadata=1 meta.v1.ObjectMeta, range=2 string, data=3 bytes
ReplicationController: metadata=1 meta.v1.ObjectMeta, spec=2 ReplicationControllerSpec,
    status=3 ReplicationControllerStatus
ReplicationControllerCondition: type=1 string, status=2 string, lastTransitionTime=3 meta.v1.Time,
    reason=4 string, message=5 string
ReplicationControllerSpec: replicas=1 int, minReadySeconds=4 int, selector=2 string{},
    template=3 PodTemplateSpec
ReplicationControllerStatus: replicas=1 int, fullyLabeledReplicas=2 int, readyReplicas=4 int,
    availableReplicas=5 int, observedGeneration=3 int, conditions=6 ReplicationControllerCondition*
ResourceClaim: name=1 string, request=2 string
ResourceFieldSelector: containerName=1 string, resource=2 string, divisor=3 resource.Quantity
ResourceHealth: resourceID=1 string, health=2 string, message=6 string
ResourceQuota: metadata=1 meta.v1.ObjectMeta, spec=2 ResourceQuotaSpec, status=3 ResourceQuotaStatus
ResourceQuotaSpec: hard=1 resource.Quantity{}, scopes=2 string*, scopeSelector=3 ScopeSelector
ResourceQuotaStatus: hard=1 resource.Quantity{}, used=2 resource.Quantity{}
ResourceRequirements: limits=1 resource.Quantity{}, requests=2 resource.Quantity{}, claims=3 ResourceClaim*
ResourceStatus: name=1 string, resources=2 ResourceHealth*
SELinuxOptions: user=1 string, role=2 string, type=3 string, level=4 string
ScaleIOPersistentVolumeSource: gateway=1 string, system=2 string, secretRef=3 SecretReference,
    sslEnabled=4 bool, protectionDomain=5 string, storagePool=6 string, storageMode=7 string,
    volumeName=8 string, fsType=9 string, readOnly=10 bool
ScaleIOVolumeSource: gateway=1 string, system=2 string, secretRef=3 LocalObjectReference, sslEnabled=4 bool,
    protectionDomain=5 string, storagePool=6 string, storageMode=7 string, volumeName=8 string,
    fsType=9 string, readOnly=10 bool
ScopeSelector: matchExpressions=1 ScopedResourceSelectorRequirement*
ScopedResourceSelectorRequirement: scopeName=1 string, operator=2 string, values=3 string*
SeccompProfile: type=1 string, localhostProfile=2 string
Secret: metadata=1 meta.v1.ObjectMeta, immutable=5 bool, data=2 bytes{}, stringData=4 string{}, type=3 string
SecretEnvSource: localObjectReference=1 LocalObjectReference<, optional=2 bool
SecretKeySelector: localObjectReference=1 LocalObjectReference<, key=2 string, optional=3 bool
SecretProjection: localObjectReference=1 LocalObjectReference<, items=2 KeyToPath*, optional=4 bool
SecretReference: name=1 string, namespace=2 string
SecretVolumeSource: secretName=1 string, items=2 KeyToPath*, defaultMode=3 int, optional=4 bool,
    defaultUser=5 int
SecurityContext: capabilities=1 Capabilities, privileged=2 bool, seLinuxOptions=3 SELinuxOptions,
    windowsOptions=10 WindowsSecurityContextOptions, runAsUser=4 int, runAsGroup=8 int, runAsNonRoot=5 bool,
    readOnlyRootFilesystem=6 bool, allowPrivilegeEscalation=7 bool, procMount=9 string,
    seccompProfile=11 SeccompProfile, appArmorProfile=12 AppArmorProfile
Service: metadata=1 meta.v1.ObjectMeta, spec=2 ServiceSpec, status=3 ServiceStatus
ServiceAccount: metadata=1 meta.v1.ObjectMeta, secrets=2 ObjectReference*,
    imagePullSecrets=3 LocalObjectReference*, automountServiceAccountToken=4 bool
ServiceAccountTokenProjection: audience=1 string, expirationSeconds=2 int, path=3 string, user=4 int
ServicePort: name=1 string, protocol=2 string, appProtocol=6 string, port=3 int,
    targetPort=4 intstr.IntOrString, nodePort=5 int
ServiceSpec: ports=1 ServicePort*, selector=2 string{}, clusterIP=3 string, clusterIPs=18 string*,
    type=4 string, externalIPs=5 string*, sessionAffinity=7 string, loadBalancerIP=8 string,
    loadBalancerSourceRanges=9 string*, externalName=10 string, externalTrafficPolicy=11 string,
    healthCheckNodePort=12 int, publishNotReadyAddresses=13 bool,
    sessionAffinityConfig=14 SessionAffinityConfig, ipFamilies=19 string*, ipFamilyPolicy=17 string,
    allocateLoadBalancerNodePorts=20 bool, loadBalancerClass=21 string, internalTrafficPolicy=22 string,
    trafficDistribution=23 string
ServiceStatus: loadBalancer=1 LoadBalancerStatus, conditions=2 meta.v1.Condition*
SessionAffinityConfig: clientIP=1 ClientIPConfig
SleepAction: seconds=1 int
StorageOSPersistentVolumeSource: volumeName=1 string, volumeNamespace=2 string, fsType=3 string,
    readOnly=4 bool, secretRef=5 ObjectReference
StorageOSVolumeSource: volumeName=1 string, volumeNamespace=2 string, fsType=3 string, readOnly=4 bool,
    secretRef=5 LocalObjectReference
Sysctl: name=1 string, value=2 string
TCPSocketAction: port=1 intstr.IntOrString, host=2 string
Taint: key=1 string, value=2 string, effect=3 string, timeAdded=4 meta.v1.Time
Toleration: key=1 string, operator=2 string, value=3 string, effect=4 string, tolerationSeconds=5 int
TopologySelectorLabelRequirement: key=1 string, values=2 string*
TopologySelectorTerm: matchLabelExpressions=1 TopologySelectorLabelRequirement*
TopologySpreadConstraint: maxSkew=1 int, topologyKey=2 string, whenUnsatisfiable=3 string,
    labelSelector=4 meta.v1.LabelSelector, minDomains=5 int, nodeAffinityPolicy=6 string,
    nodeTaintsPolicy=7 string, matchLabelKeys=8 string*
TypedLocalObjectReference: apiGroup=1 string, kind=2 string, name=3 string
TypedObjectReference: apiGroup=1 string, kind=2 string, name=3 string, namespace=4 string
Volume: name=1 string, volumeSource=2 VolumeSource<
VolumeDevice: name=1 string, devicePath=2 string
VolumeHealthCondition: status=1 string, reason=2 string, message=3 string
VolumeHealthStatus: healthConditions=1 VolumeHealthCondition*, lastTransitionTime=2 meta.v1.Time
VolumeMount: name=1 string, readOnly=2 bool, recursiveReadOnly=7 string, mountPath=3 string, subPath=4 string,
    mountPropagation=5 string, subPathExpr=6 string, bindMountOptions=8 string*
VolumeMountStatus: name=1 string, mountPath=2 string, readOnly=3 bool, recursiveReadOnly=4 string,
    volumeStatus=5 VolumeStatus
VolumeNodeAffinity: required=1 NodeSelector
VolumeProjection: secret=1 SecretProjection, downwardAPI=2 DownwardAPIProjection,
    configMap=3 ConfigMapProjection, serviceAccountToken=4 ServiceAccountTokenProjection,
    clusterTrustBundle=5 ClusterTrustBundleProjection, podCertificate=6 PodCertificateProjection
VolumeResourceRequirements: limits=1 resource.Quantity{}, requests=2 resource.Quantity{}
VolumeSource: hostPath=1 HostPathVolumeSource, emptyDir=2 EmptyDirVolumeSource,
    gcePersistentDisk=3 GCEPersistentDiskVolumeSource,
    awsElasticBlockStore=4 AWSElasticBlockStoreVolumeSource, gitRepo=5 GitRepoVolumeSource,
    secret=6 SecretVolumeSource, nfs=7 NFSVolumeSource, iscsi=8 ISCSIVolumeSource,
    glusterfs=9 GlusterfsVolumeSource, persistentVolumeClaim=10 PersistentVolumeClaimVolumeSource,
    rbd=11 RBDVolumeSource, flexVolume=12 FlexVolumeSource, cinder=13 CinderVolumeSource,
    cephfs=14 CephFSVolumeSource, flocker=15 FlockerVolumeSource, downwardAPI=16 DownwardAPIVolumeSource,
    fc=17 FCVolumeSource, azureFile=18 AzureFileVolumeSource, configMap=19 ConfigMapVolumeSource,
    vsphereVolume=20 VsphereVirtualDiskVolumeSource, quobyte=21 QuobyteVolumeSource,
    azureDisk=22 AzureDiskVolumeSource, photonPersistentDisk=23 PhotonPersistentDiskVolumeSource,
    projected=26 ProjectedVolumeSource, portworxVolume=24 PortworxVolumeSource,
    scaleIO=25 ScaleIOVolumeSource, storageos=27 StorageOSVolumeSource, csi=28 CSIVolumeSource,
    ephemeral=29 EphemeralVolumeSource, image=30 ImageVolumeSource
VolumeStatus: image=1 ImageVolumeStatus
VsphereVirtualDiskVolumeSource: volumePath=1 string, fsType=2 string, storagePolicyName=3 string,
    storagePolicyID=4 string
WeightedPodAffinityTerm: weight=1 int, podAffinityTerm=2 PodAffinityTerm
WindowsSecurityContextOptions: gmsaCredentialSpecName=1 string, gmsaCredentialSpec=2 string,
    runAsUserName=3 string, hostProcess=4 bool
package discovery.v1
Endpoint: addresses=1 string*, conditions=2 EndpointConditions, hostname=3 string,
    targetRef=4 core.v1.ObjectReference, deprecatedTopology=5 string{}, nodeName=6 string, zone=7 string,
    hints=8 EndpointHints
EndpointConditions: ready=1 bool, serving=2 bool, terminating=3 bool
EndpointHints: forZones=1 ForZone*, forNodes=2 ForNode*
EndpointPort: name=1 string, protocol=2 string, port=3 int, appProtocol=4 string
EndpointSlice: metadata=1 meta.v1.ObjectMeta, addressType=4 string, endpoints=2 Endpoint*,
    ports=3 EndpointPort*
ForNode: name=1 string
ForZone: name=1 string
package discovery.v1beta1
Endpoint: addresses=1 string*, conditions=2 EndpointConditions, hostname=3 string,
    targetRef=4 core.v1.ObjectReference, topology=5 string{}, nodeName=6 string, hints=7 EndpointHints
EndpointConditions: ready=1 bool, serving=2 bool, terminating=3 bool
EndpointHints: forZones=1 ForZone*, forNodes=2 ForNode*
EndpointPort: name=1 string, protocol=2 string, port=3 int, appProtocol=4 string
EndpointSlice: metadata=1 meta.v1.ObjectMeta, addressType=4 string, endpoints=2 Endpoint*,
    ports=3 EndpointPort*
ForNode: name=1 string
ForZone: name=1 string
package events.v1
Event: metadata=1 meta.v1.ObjectMeta, eventTime=2 meta.v1.MicroTime, series=3 EventSeries,
    reportingController=4 string, reportingInstance=5 string, action=6 string, reason=7 string,
    regarding=8 core.v1.ObjectReference, related=9 core.v1.ObjectReference, note=10 string, type=11 string,
    deprecatedSource=12 core.v1.EventSource, deprecatedFirstTimestamp=13 meta.v1.Time,
    deprecatedLastTimestamp=14 meta.v1.Time, deprecatedCount=15 int
EventSeries: count=1 int, lastObservedTime=2 meta.v1.MicroTime
package events.v1beta1
Event: metadata=1 meta.v1.ObjectMeta, eventTime=2 meta.v1.MicroTime, series=3 EventSeries,
    reportingController=4 string, reportingInstance=5 string, action=6 string, reason=7 string,
    regarding=8 core.v1.ObjectReference, related=9 core.v1.ObjectReference, note=10 string, type=11 string,
    deprecatedSource=12 core.v1.EventSource, deprecatedFirstTimestamp=13 meta.v1.Time,
    deprecatedLastTimestamp=14 meta.v1.Time, deprecatedCount=15 int
EventSeries: count=1 int, lastObservedTime=2 meta.v1.MicroTime
package flowcontrol.v1
ExemptPriorityLevelConfiguration: nominalConcurrencyShares=1 int, lendablePercent=2 int
FlowDistinguisherMethod: type=1 string
FlowSchema: metadata=1 meta.v1.ObjectMeta, spec=2 FlowSchemaSpec, status=3 FlowSchemaStatus
FlowSchemaCondition: type=1 string, status=2 string, lastTransitionTime=3 meta.v1.Time, reason=4 string,
    message=5 string
FlowSchemaSpec: priorityLevelConfiguration=1 PriorityLevelConfigurationReference, matchingPrecedence=2 int,
    distinguisherMethod=3 FlowDistinguisherMethod, rules=4 PolicyRulesWithSubjects*
FlowSchemaStatus: conditions=1 FlowSchemaCondition*
GroupSubject: name=1 string
LimitResponse: type=1 string, queuing=2 QueuingConfiguration
LimitedPriorityLevelConfiguration: nominalConcurrencyShares=1 int, limitResponse=2 LimitResponse,
    lendablePercent=3 int, borrowingLimitPercent=4 int
NonResourcePolicyRule: verbs=1 string*, nonResourceURLs=6 string*
PolicyRulesWithSubjects: subjects=1 Subject*, resourceRules=2 ResourcePolicyRule*,
    nonResourceRules=3 NonResourcePolicyRule*
PriorityLevelConfiguration: metadata=1 meta.v1.ObjectMeta, spec=2 PriorityLevelConfigurationSpec,
    status=3 PriorityLevelConfigurationStatus
PriorityLevelConfigurationCondition: type=1 string, status=2 string, lastTransitionTime=3 meta.v1.Time,
    reason=4 string, message=5 string
PriorityLevelConfigurationReference: name=1 string
PriorityLevelConfigurationSpec: type=1 string, limited=2 LimitedPriorityLevelConfiguration,
    exempt=3 ExemptPriorityLevelConfiguration
PriorityLevelConfigurationStatus: conditions=1 PriorityLevelConfigurationCondition*
QueuingConfiguration: queues=1 int, handSize=2 int, queueLengthLimit=3 int
ResourcePolicyRule: verbs=1 string*, apiGroups=2 string*, resources=3 string*, clusterScope=4 bool,
    namespaces=5 string*
ServiceAccountSubject: namespace=1 string, name=2 string
Subject: kind=1 string, user=2 UserSubject, group=3 GroupSubject, serviceAccount=4 ServiceAccountSubject
UserSubject: name=1 string
package intstr
IntOrString: type=1 int, intVal=2 int, strVal=3 string
package meta.v1
Condition: type=1 string, status=2 string, observedGeneration=3 int, lastTransitionTime=4 Time,
    reason=5 string, message=6 string
DeleteOptions: gracePeriodSeconds=1 int, preconditions=2 Preconditions, orphanDependents=3 bool,
    propagationPolicy=4 string, dryRun=5 string*, ignoreStoreReadErrorWithClusterBreakingPotential=6 bool
FieldsV1: Raw=1 bytes
GroupResource: group=1 string, resource=2 string
LabelSelector: matchLabels=1 string{}, matchExpressions=2 LabelSelectorRequirement*
LabelSelectorRequirement: key=1 string, operator=2 string, values=3 string*
ManagedFieldsEntry: manager=1 string, operation=2 string, apiVersion=3 string, time=4 Time,
    fieldsType=6 string, fieldsV1=7 FieldsV1, subresource=8 string
MicroTime: seconds=1 int, nanos=2 int
ObjectMeta: name=1 string, generateName=2 string, namespace=3 string, selfLink=4 string, uid=5 string,
    resourceVersion=6 string, generation=7 int, creationTimestamp=8 Time, deletionTimestamp=9 Time,
    deletionGracePeriodSeconds=10 int, labels=11 string{}, annotations=12 string{},
    ownerReferences=13 OwnerReference*, finalizers=14 string*, managedFields=17 ManagedFieldsEntry*
OwnerReference: apiVersion=5 string, kind=1 string, name=3 string, uid=4 string, controller=6 bool,
    blockOwnerDeletion=7 bool
Preconditions: uid=1 string, resourceVersion=2 string
Time: seconds=1 int, nanos=2 int
package networking.v1
HTTPIngressPath: path=1 string, pathType=3 string, backend=2 IngressBackend
HTTPIngressRuleValue: paths=1 HTTPIngressPath*
IPAddress: metadata=1 meta.v1.ObjectMeta, spec=2 IPAddressSpec
IPAddressSpec: parentRef=1 ParentReference
IPBlock: cidr=1 string, except=2 string*
Ingress: metadata=1 meta.v1.ObjectMeta, spec=2 IngressSpec, status=3 IngressStatus
IngressBackend: service=4 IngressServiceBackend, resource=3 core.v1.TypedLocalObjectReference
IngressClass: metadata=1 meta.v1.ObjectMeta, spec=2 IngressClassSpec
IngressClassParametersReference: aPIGroup=1 string, kind=2 string, name=3 string, scope=4 string,
    namespace=5 string
IngressClassSpec: controller=1 string, parameters=2 IngressClassParametersReference
IngressLoadBalancerIngress: ip=1 string, hostname=2 string, ports=4 IngressPortStatus*
IngressLoadBalancerStatus: ingress=1 IngressLoadBalancerIngress*
IngressPortStatus: port=1 int, protocol=2 string, error=3 string
IngressRule: host=1 string, ingressRuleValue=2 IngressRuleValue<
IngressRuleValue: http=1 HTTPIngressRuleValue
IngressServiceBackend: name=1 string, port=2 ServiceBackendPort
IngressSpec: ingressClassName=4 string, defaultBackend=1 IngressBackend, tls=2 IngressTLS*,
    rules=3 IngressRule*
IngressStatus: loadBalancer=1 IngressLoadBalancerStatus
IngressTLS: hosts=1 string*, secretName=2 string
NetworkPolicy: metadata=1 meta.v1.ObjectMeta, spec=2 NetworkPolicySpec
NetworkPolicyEgressRule: ports=1 NetworkPolicyPort*, to=2 NetworkPolicyPeer*
NetworkPolicyIngressRule: ports=1 NetworkPolicyPort*, from=2 NetworkPolicyPeer*
NetworkPolicyPeer: podSelector=1 meta.v1.LabelSelector, namespaceSelector=2 meta.v1.LabelSelector,
    ipBlock=3 IPBlock
NetworkPolicyPort: protocol=1 string, port=2 intstr.IntOrString, endPort=3 int
NetworkPolicySpec: podSelector=1 meta.v1.LabelSelector, ingress=2 NetworkPolicyIngressRule*,
    egress=3 NetworkPolicyEgressRule*, policyTypes=4 string*
ParentReference: group=1 string, resource=2 string, namespace=3 string, name=4 string
ServiceBackendPort: name=1 string, number=2 int
ServiceCIDR: metadata=1 meta.v1.ObjectMeta, spec=2 ServiceCIDRSpec, status=3 ServiceCIDRStatus
ServiceCIDRSpec: cidrs=1 string*
ServiceCIDRStatus: conditions=1 meta.v1.Condition*
package networking.v1beta1
HTTPIngressPath: path=1 string, pathType=3 string, backend=2 IngressBackend
HTTPIngressRuleValue: paths=1 HTTPIngressPath*
IPAddress: metadata=1 meta.v1.ObjectMeta, spec=2 IPAddressSpec
IPAddressSpec: parentRef=1 ParentReference
Ingress: metadata=1 meta.v1.ObjectMeta, spec=2 IngressSpec, status=3 IngressStatus
IngressBackend: serviceName=1 string, servicePort=2 intstr.IntOrString,
    resource=3 core.v1.TypedLocalObjectReference
IngressClass: metadata=1 meta.v1.ObjectMeta, spec=2 IngressClassSpec
IngressClassParametersReference: aPIGroup=1 string, kind=2 string, name=3 string, scope=4 string,
    namespace=5 string
IngressClassSpec: controller=1 string, parameters=2 IngressClassParametersReference
IngressLoadBalancerIngress: ip=1 string, hostname=2 string, ports=4 IngressPortStatus*
IngressLoadBalancerStatus: ingress=1 IngressLoadBalancerIngress*
IngressPortStatus: port=1 int, protocol=2 string, error=3 string
IngressRule: host=1 string, ingressRuleValue=2 IngressRuleValue<
IngressRuleValue: http=1 HTTPIngressRuleValue
IngressSpec: ingressClassName=4 string, backend=1 IngressBackend, tls=2 IngressTLS*, rules=3 IngressRule*
IngressStatus: loadBalancer=1 IngressLoadBalancerStatus
IngressTLS: hosts=1 string*, secretName=2 string
ParentReference: group=1 string, resource=2 string, namespace=3 string, name=4 string
ServiceCIDR: metadata=1 meta.v1.ObjectMeta, spec=2 ServiceCIDRSpec, status=3 ServiceCIDRStatus
ServiceCIDRSpec: cidrs=1 string*
ServiceCIDRStatus: conditions=1 meta.v1.Condition*
package node.v1
Overhead: podFixed=1 resource.Quantity{}
RuntimeClass: metadata=1 meta.v1.ObjectMeta, handler=2 string, overhead=3 Overhead, scheduling=4 Scheduling
Scheduling: nodeSelector=1 string{}, tolerations=2 core.v1.Toleration*
package node.v1beta1
Overhead: podFixed=1 resource.Quantity{}
RuntimeClass: metadata=1 meta.v1.ObjectMeta, handler=2 string, overhead=3 Overhead, scheduling=4 Scheduling
Scheduling: nodeSelector=1 string{}, tolerations=2 core.v1.Toleration*
package policy.v1
Eviction: metadata=1 meta.v1.ObjectMeta, deleteOptions=2 meta.v1.DeleteOptions
PodDisruptionBudget: metadata=1 meta.v1.ObjectMeta, spec=2 PodDisruptionBudgetSpec,
    status=3 PodDisruptionBudgetStatus
PodDisruptionBudgetSpec: minAvailable=1 intstr.IntOrString, selector=2 meta.v1.LabelSelector,
    maxUnavailable=3 intstr.IntOrString, unhealthyPodEvictionPolicy=4 string
PodDisruptionBudgetStatus: observedGeneration=1 int, disruptedPods=2 meta.v1.Time{}, disruptionsAllowed=3 int,
    currentHealthy=4 int, desiredHealthy=5 int, expectedPods=6 int, conditions=7 meta.v1.Condition*
package policy.v1beta1
Eviction: metadata=1 meta.v1.ObjectMeta, deleteOptions=2 meta.v1.DeleteOptions
PodDisruptionBudget: metadata=1 meta.v1.ObjectMeta, spec=2 PodDisruptionBudgetSpec,
    status=3 PodDisruptionBudgetStatus
PodDisruptionBudgetSpec: minAvailable=1 intstr.IntOrString, selector=2 meta.v1.LabelSelector,
    maxUnavailable=3 intstr.IntOrString, unhealthyPodEvictionPolicy=4 string
PodDisruptionBudgetStatus: observedGeneration=1 int, disruptedPods=2 meta.v1.Time{}, disruptionsAllowed=3 int,
    currentHealthy=4 int, desiredHealthy=5 int, expectedPods=6 int, conditions=7 meta.v1.Condition*
package rbac.v1
AggregationRule: clusterRoleSelectors=1 meta.v1.LabelSelector*
ClusterRole: metadata=1 meta.v1.ObjectMeta, rules=2 PolicyRule*, aggregationRule=3 AggregationRule
PolicyRule: verbs=1 string*, apiGroups=2 string*, resources=3 string*, resourceNames=4 string*,
    nonResourceURLs=5 string*
Role: metadata=1 meta.v1.ObjectMeta, rules=2 PolicyRule*
package rbac.v1beta1
AggregationRule: clusterRoleSelectors=1 meta.v1.LabelSelector*
ClusterRole: metadata=1 meta.v1.ObjectMeta, rules=2 PolicyRule*, aggregationRule=3 AggregationRule
PolicyRule: verbs=1 string*, apiGroups=2 string*, resources=3 string*, resourceNames=4 string*,
    nonResourceURLs=5 string*
Role: metadata=1 meta.v1.ObjectMeta, rules=2 PolicyRule*
package resource
Quantity: string=1 string
package resource.v1
AllocatedDeviceStatus: driver=1 string, pool=2 string, device=3 string, shareID=7 string,
    conditions=4 meta.v1.Condition*, data=5 runtime.RawExtension, networkData=6 NetworkDeviceData
AllocationResult: devices=1 DeviceAllocationResult, nodeSelector=3 core.v1.NodeSelector,
    allocationTimestamp=5 meta.v1.Time
CELDeviceSelector: expression=1 string
CapacityRequestPolicy: default=1 resource.Quantity, validValues=3 resource.Quantity*,
    validRange=4 CapacityRequestPolicyRange
CapacityRequestPolicyRange: min=1 resource.Quantity, max=2 resource.Quantity, step=3 resource.Quantity
CapacityRequirements: requests=1 resource.Quantity{}
Counter: value=1 resource.Quantity
CounterSet: name=1 string, counters=2 Counter{}
Device: name=1 string, attributes=2 DeviceAttribute{}, capacity=3 DeviceCapacity{},
    consumesCounters=4 DeviceCounterConsumption*, nodeName=5 string, nodeSelector=6 core.v1.NodeSelector,
    allNodes=7 bool, taints=8 DeviceTaint*, bindsToNode=9 bool, bindingConditions=10 string*,
    bindingFailureConditions=11 string*, allowMultipleAllocations=12 bool,
    nodeAllocatableResources=14 NodeAllocatableResource{}
DeviceAllocationConfiguration: source=1 string, requests=2 string*,
    deviceConfiguration=3 DeviceConfiguration<
DeviceAllocationResult: results=1 DeviceRequestAllocationResult*, config=2 DeviceAllocationConfiguration*
DeviceAttribute: int=2 int, bool=3 bool, string=4 string, version=5 string, ints=6 int*, bools=7 bool*,
    strings=8 string*, versions=9 string*
DeviceCapacity: value=1 resource.Quantity, requestPolicy=2 CapacityRequestPolicy
DeviceClaim: requests=1 DeviceRequest*, constraints=2 DeviceConstraint*, config=3 DeviceClaimConfiguration*
DeviceClaimConfiguration: requests=1 string*, deviceConfiguration=2 DeviceConfiguration<
DeviceClass: metadata=1 meta.v1.ObjectMeta, spec=2 DeviceClassSpec
DeviceClassConfiguration: deviceConfiguration=1 DeviceConfiguration<
DeviceClassSpec: selectors=1 DeviceSelector*, config=2 DeviceClassConfiguration*,
    extendedResourceName=4 string
DeviceConfiguration: opaque=1 OpaqueDeviceConfiguration
DeviceConstraint: requests=1 string*, matchAttribute=2 string, distinctAttribute=3 string
DeviceCounterConsumption: counterSet=1 string, counters=2 Counter{}
DeviceRequest: name=1 string, exactly=2 ExactDeviceRequest, firstAvailable=3 DeviceSubRequest*
DeviceRequestAllocationResult: request=1 string, driver=2 string, pool=3 string, device=4 string,
    adminAccess=5 bool, tolerations=6 DeviceToleration*, bindingConditions=7 string*,
    bindingFailureConditions=8 string*, shareID=9 string, consumedCapacity=10 resource.Quantity{},
    skipNodeOperations=11 string*
DeviceSelector: cel=1 CELDeviceSelector
DeviceSubRequest: name=1 string, deviceClassName=2 string, selectors=3 DeviceSelector*,
    allocationMode=4 string, count=5 int, tolerations=6 DeviceToleration*, capacity=7 CapacityRequirements
DeviceTaint: key=1 string, value=2 string, effect=3 string, timeAdded=4 meta.v1.Time
DeviceTaintRule: metadata=1 meta.v1.ObjectMeta, spec=2 DeviceTaintRuleSpec, status=3 DeviceTaintRuleStatus
DeviceTaintRuleSpec: deviceSelector=1 DeviceTaintSelector, taint=2 DeviceTaint
DeviceTaintRuleStatus: conditions=1 meta.v1.Condition*
DeviceTaintSelector: driver=2 string, pool=3 string, device=4 string
DeviceToleration: key=1 string, operator=2 string, value=3 string, effect=4 string, tolerationSeconds=5 int
ExactDeviceRequest: deviceClassName=1 string, selectors=2 DeviceSelector*, allocationMode=3 string,
    count=4 int, adminAccess=5 bool, tolerations=6 DeviceToleration*, capacity=7 CapacityRequirements
NetworkDeviceData: interfaceName=1 string, ips=2 string*, hardwareAddress=3 string
NodeAllocatableMapping: capacityKey=1 string, capacityMultiplier=2 resource.Quantity,
    deviceMultiplier=3 resource.Quantity
NodeAllocatableOverhead: perPod=1 resource.Quantity, perContainer=2 resource.Quantity
NodeAllocatableResource: mapping=3 NodeAllocatableMapping, overhead=4 NodeAllocatableOverhead
OpaqueDeviceConfiguration: driver=1 string, parameters=2 runtime.RawExtension
ResourceClaim: metadata=1 meta.v1.ObjectMeta, spec=2 ResourceClaimSpec, status=3 ResourceClaimStatus
ResourceClaimConsumerReference: apiGroup=1 string, resource=3 string, name=4 string, uid=5 string
ResourceClaimSpec: devices=1 DeviceClaim
ResourceClaimStatus: allocation=1 AllocationResult, reservedFor=2 ResourceClaimConsumerReference*,
    devices=4 AllocatedDeviceStatus*
ResourceClaimTemplate: metadata=1 meta.v1.ObjectMeta, spec=2 ResourceClaimTemplateSpec
ResourceClaimTemplateSpec: metadata=1 meta.v1.ObjectMeta, spec=2 ResourceClaimSpec
ResourcePool: name=1 string, generation=2 int, resourceSliceCount=3 int
ResourceSlice: metadata=1 meta.v1.ObjectMeta, spec=2 ResourceSliceSpec
ResourceSliceSpec: driver=1 string, pool=2 ResourcePool, nodeName=3 string,
    nodeSelector=4 core.v1.NodeSelector, allNodes=5 bool, devices=6 Device*, perDeviceNodeSelection=7 bool,
    sharedCounters=8 CounterSet*, partitionTypeAttribute=9 string, skipNodeOperations=10 string*
package runtime
RawExtension: raw=1 bytes
package scheduling.v1
PriorityClass: metadata=1 meta.v1.ObjectMeta, value=2 int, globalDefault=3 bool, description=4 string,
    preemptionPolicy=5 string
package scheduling.v1beta1
AllCompositeDisruptionMode:
AllDisruptionMode:
BasicSchedulingPolicy:
CompositeBasicSchedulingPolicy:
CompositeDisruptionMode: single=1 SingleCompositeDisruptionMode, all=2 AllCompositeDisruptionMode
CompositeGangSchedulingPolicy: minGroupCount=1 int
CompositePodGroupSchedulingConstraints: topology=1 TopologyConstraint*
CompositePodGroupSchedulingPolicy: basic=1 CompositeBasicSchedulingPolicy,
    gang=2 CompositeGangSchedulingPolicy
CompositePodGroupTemplate: name=1 string, schedulingPolicy=2 CompositePodGroupSchedulingPolicy,
    schedulingConstraints=3 CompositePodGroupSchedulingConstraints, disruptionMode=4 CompositeDisruptionMode,
    priorityClassName=5 string, priority=6 int, preemptionPolicy=7 string,
    podGroupTemplates=8 PodGroupTemplate*, compositePodGroupTemplates=9 CompositePodGroupTemplate*
DisruptionMode: single=1 SingleDisruptionMode, all=2 AllDisruptionMode
GangSchedulingPolicy: minCount=1 int
PodGroup: metadata=1 meta.v1.ObjectMeta, spec=2 PodGroupSpec, status=3 PodGroupStatus
PodGroupResourceClaim: name=1 string, resourceClaimName=2 string, resourceClaimTemplateName=3 string
PodGroupResourceClaimStatus: name=1 string, resourceClaimName=2 string
PodGroupSchedulingConstraints: topology=1 TopologyConstraint*
PodGroupSchedulingPolicy: basic=1 BasicSchedulingPolicy, gang=2 GangSchedulingPolicy
PodGroupSpec: parentCompositePodGroupName=1 string, workloadRef=2 WorkloadReference,
    schedulingPolicy=3 PodGroupSchedulingPolicy, schedulingConstraints=4 PodGroupSchedulingConstraints,
    resourceClaims=5 PodGroupResourceClaim*, disruptionMode=6 DisruptionMode, priorityClassName=7 string,
    priority=8 int, preemptionPolicy=9 string
PodGroupStatus: conditions=1 meta.v1.Condition*, resourceClaimStatuses=2 PodGroupResourceClaimStatus*
PodGroupTemplate: name=1 string, schedulingPolicy=2 PodGroupSchedulingPolicy,
    schedulingConstraints=3 PodGroupSchedulingConstraints, resourceClaims=4 PodGroupResourceClaim*,
    disruptionMode=5 DisruptionMode, priorityClassName=6 string, priority=7 int, preemptionPolicy=8 string
PriorityClass: metadata=1 meta.v1.ObjectMeta, value=2 int, globalDefault=3 bool, description=4 string,
    preemptionPolicy=5 string
SingleCompositeDisruptionMode:
SingleDisruptionMode:
TopologyConstraint: key=1 string
TypedLocalObjectReference: apiGroup=1 string, kind=2 string, name=3 string
Workload: metadata=1 meta.v1.ObjectMeta, spec=2 WorkloadSpec
WorkloadReference: workloadName=1 string, templateName=2 string
WorkloadSpec: controllerRef=1 TypedLocalObjectReference, podGroupTemplates=2 PodGroupTemplate*,
    compositePodGroupTemplates=3 CompositePodGroupTemplate*
package storage.v1
CSIDriver: metadata=1 meta.v1.ObjectMeta, spec=2 CSIDriverSpec
CSIDriverSpec: attachRequired=1 bool, podInfoOnMount=2 bool, volumeLifecycleModes=3 string*,
    storageCapacity=4 bool, fsGroupPolicy=5 string, tokenRequests=6 TokenRequest*, requiresRepublish=7 bool,
    seLinuxMount=8 bool, nodeAllocatableUpdatePeriodSeconds=9 int, serviceAccountTokenInSecrets=10 bool,
    preventPodSchedulingIfMissing=11 bool
CSINode: metadata=1 meta.v1.ObjectMeta, spec=2 CSINodeSpec, status=3 CSINodeStatus
CSINodeDriver: name=1 string, nodeID=2 string, topologyKeys=3 string*, allocatable=4 VolumeNodeResources
CSINodeSpec: drivers=1 CSINodeDriver*
CSINodeStatus: storageHealth=1 StorageHealth*
CSIStorageCapacity: metadata=1 meta.v1.ObjectMeta, nodeTopology=2 meta.v1.LabelSelector,
    storageClassName=3 string, capacity=4 resource.Quantity, maximumVolumeSize=5 resource.Quantity
StorageClass: metadata=1 meta.v1.ObjectMeta, provisioner=2 string, parameters=3 string{},
    reclaimPolicy=4 string, mountOptions=5 string*, allowVolumeExpansion=6 bool, volumeBindingMode=7 string,
    allowedTopologies=8 core.v1.TopologySelectorTerm*
StorageHealth: name=1 string, healthConditions=2 StorageHealthCondition*
StorageHealthCondition: status=1 string, reason=2 string, message=3 string, accessMode=4 string,
    volumeMode=5 string, lastTransitionTime=6 meta.v1.Time
TokenRequest: audience=1 string, expirationSeconds=2 int
VolumeAttachment: metadata=1 meta.v1.ObjectMeta, spec=2 VolumeAttachmentSpec, status=3 VolumeAttachmentStatus
VolumeAttachmentSource: persistentVolumeName=1 string, inlineVolumeSpec=2 core.v1.PersistentVolumeSpec
VolumeAttachmentSpec: attacher=1 string, source=2 VolumeAttachmentSource, nodeName=3 string
VolumeAttachmentStatus: attached=1 bool, attachmentMetadata=2 string{}, attachError=3 VolumeError,
    detachError=4 VolumeError
VolumeAttributesClass: metadata=1 meta.v1.ObjectMeta, driverName=2 string, parameters=3 string{}
VolumeError: time=1 meta.v1.Time, message=2 string, errorCode=3 int
VolumeNodeResources: count=1 int
package storage.v1beta1
CSIDriver: metadata=1 meta.v1.ObjectMeta, spec=2 CSIDriverSpec
CSIDriverSpec: attachRequired=1 bool, podInfoOnMount=2 bool, volumeLifecycleModes=3 string*,
    storageCapacity=4 bool, fsGroupPolicy=5 string, tokenRequests=6 TokenRequest*, requiresRepublish=7 bool,
    seLinuxMount=8 bool, nodeAllocatableUpdatePeriodSeconds=9 int, serviceAccountTokenInSecrets=10 bool,
    preventPodSchedulingIfMissing=11 bool
CSINode: metadata=1 meta.v1.ObjectMeta, spec=2 CSINodeSpec, status=3 CSINodeStatus
CSINodeDriver: name=1 string, nodeID=2 string, topologyKeys=3 string*, allocatable=4 VolumeNodeResources
CSINodeSpec: drivers=1 CSINodeDriver*
CSINodeStatus: storageHealth=1 StorageHealth*
CSIStorageCapacity: metadata=1 meta.v1.ObjectMeta, nodeTopology=2 meta.v1.LabelSelector,
    storageClassName=3 string, capacity=4 resource.Quantity, maximumVolumeSize=5 resource.Quantity
StorageClass: metadata=1 meta.v1.ObjectMeta, provisioner=2 string, parameters=3 string{},
    reclaimPolicy=4 string, mountOptions=5 string*, allowVolumeExpansion=6 bool, volumeBindingMode=7 string,
    allowedTopologies=8 core.v1.TopologySelectorTerm*
StorageHealth: name=1 string, healthConditions=2 StorageHealthCondition*
StorageHealthCondition: status=1 string, reason=2 string, message=3 string, accessMode=4 string,
    volumeMode=5 string, lastTransitionTime=6 meta.v1.Time
TokenRequest: audience=1 string, expirationSeconds=2 int
VolumeAttachment: metadata=1 meta.v1.ObjectMeta, spec=2 VolumeAttachmentSpec, status=3 VolumeAttachmentStatus
VolumeAttachmentSource: persistentVolumeName=1 string, inlineVolumeSpec=2 core.v1.PersistentVolumeSpec
VolumeAttachmentSpec: attacher=1 string, source=2 VolumeAttachmentSource, nodeName=3 string
VolumeAttachmentStatus: attached=1 bool, attachmentMetadata=2 string{}, attachError=3 VolumeError,
    detachError=4 VolumeError
VolumeAttributesClass: metadata=1 meta.v1.ObjectMeta, driverName=2 string, parameters=3 string{}
VolumeError: time=1 meta.v1.Time, message=2 string, errorCode=3 int
VolumeNodeResources: count=1 int
package storagemigration.v1
StorageVersionMigration: metadata=1 meta.v1.ObjectMeta, spec=2 StorageVersionMigrationSpec,
    status=3 StorageVersionMigrationStatus
StorageVersionMigrationSpec: resource=1 meta.v1.GroupResource
StorageVersionMigrationStatus: conditions=1 meta.v1.Condition*, resourceVersion=2 string
package storagemigration.v1beta1
StorageVersionMigration: metadata=1 meta.v1.ObjectMeta, spec=2 StorageVersionMigrationSpec,
    status=3 StorageVersionMigrationStatus
StorageVersionMigrationSpec: resource=1 meta.v1.GroupResource
StorageVersionMigrationStatus: conditions=1 meta.v1.Condition*, resourceVersion=2 string
"""
