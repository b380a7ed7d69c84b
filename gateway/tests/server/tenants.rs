//! Tenants changed by several at once.

use crate::support::{Client, TestDir, code, serve};
use proto::v1::{ListTenantsRequest, PutTenantRequest, Quota, TenantRow};

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
