//! Tenants changed by several at once.

use crate::support::{Client, TestDir, code, serve};
use proto::v1::{JobSpec, ListTenantsRequest, PutTenantRequest, Quota, Step, SubmitRequest, TenantRow};

async fn lab(client: &Client) -> Option<TenantRow> {
    let request = client.request(ListTenantsRequest {});
    let tenants = client.grpc.clone().list_tenants(request).await.unwrap().into_inner().tenants;
    tenants.into_iter().filter_map(|view| view.tenant).find(|row| row.name == "lab")
}

#[tokio::test]
async fn a_change_in_part_undoes_nobodys() {
    let dir = TestDir::new();
    let server = serve(&dir).await.unwrap();
    let admin = Client::new(&server, &server.token).await;
    let put = async |tenant: TenantRow, was: Option<TenantRow>| {
        let request = admin.request(PutTenantRequest { tenant: Some(tenant), was });
        admin.grpc.clone().put_tenant(request).await
    };
    let fresh = TenantRow { name: "lab".into(), ..TenantRow::default() };
    assert_eq!(code(put(fresh.clone(), Some(fresh.clone())).await), "missing.tenant");
    assert!(lab(&admin).await.is_none());
    admin.tenant("lab").await;
    let was = lab(&admin).await.unwrap();
    let with = |quota: Quota| TenantRow { quota: Some(quota), ..was.clone() };
    let (gpus, cores) = (
        with(Quota { gpus: Some(1), ..Quota::default() }),
        with(Quota { millicores: Some(1), ..Quota::default() }),
    );
    // Both saw the same; one of them is told.
    let both = tokio::join!(put(gpus, Some(was.clone())), put(cores, Some(was.clone())));
    let told = match both {
        (Ok(_), told) | (told, Ok(_)) => told,
        neither => panic!("{neither:?}"),
    };
    assert_eq!(code(told), "conflict.tenant");
    let now = lab(&admin).await.unwrap();
    assert_eq!((now.quota.is_some(), now.created_ms), (true, was.created_ms));
    // Without a word of what it was it is set anew, and keeps its age.
    put(fresh, None).await.unwrap();
    assert_eq!(lab(&admin).await.unwrap(), was);
    server.stop().await;
}

/// Groups stand where they can: each in one that is there, in no ring, and not too deep.
#[tokio::test]
async fn a_tenant_is_in_a_group() {
    let dir = TestDir::new();
    let server = serve(&dir).await.unwrap();
    let admin = Client::new(&server, &server.token).await;
    let put = async |name: &str, parent: &str, group: bool| {
        let (name, parent) = (name.into(), parent.into());
        let tenant = Some(TenantRow { name, parent, group, ..TenantRow::default() });
        let told = admin.grpc.clone().put_tenant(admin.request(PutTenantRequest { tenant, was: None })).await;
        if told.is_ok() { String::new() } else { code(told) }
    };
    assert_eq!(put("lab", "org", false).await, "missing.group");
    assert_eq!(put("org", "", true).await, "");
    assert_eq!(put("lab", "org", false).await, "");
    assert_eq!(lab(&admin).await.unwrap().parent, "org");
    assert_eq!(put("other", "lab", false).await, "missing.group", "a tenant is no group");
    assert_eq!(put("lab", "org", true).await, "conflict.group", "it may have jobs");
    for (name, parent) in [("a", "org"), ("b", "a"), ("c", "b")] {
        assert_eq!(put(name, parent, true).await, "");
    }
    assert_eq!(put("org", "b", true).await, "conflict.parent", "it is above");
    assert_eq!(put("org", "org", true).await, "conflict.parent");
    assert_eq!(put("lab", "c", false).await, "");
    assert_eq!(put("d", "c", true).await, "conflict.parent", "the fifth in one another");
    assert_eq!(put("top", "", true).await, "");
    assert_eq!(put("org", "top", true).await, "conflict.parent", "with all that is below it");
    assert_eq!(put("c", "top", true).await, "");
    assert_eq!(put("org", "top", true).await, "");
    let stores = Some(Quota { storage_bytes: Some(1), ..Quota::default() });
    let row = TenantRow { name: "org".into(), group: true, quota: stores, ..TenantRow::default() };
    let request = admin.request(PutTenantRequest { tenant: Some(row), was: None });
    assert_eq!(code(admin.grpc.clone().put_tenant(request).await), "spec.group");
    // Nobody has a job in a group's own name.
    let spec = JobSpec {
        name: "job".into(),
        steps: vec![Step { name: "main".into(), run: "true".into(), ..Step::default() }],
        ..JobSpec::default()
    };
    let submit = SubmitRequest { tenant: "org".into(), spec: Some(spec), ..SubmitRequest::default() };
    let refused = admin.grpc.clone().submit(admin.request(submit)).await.unwrap_err();
    assert_eq!(proto::problem::Problem::from(refused).code, "spec.tenant");
    server.stop().await;
}
